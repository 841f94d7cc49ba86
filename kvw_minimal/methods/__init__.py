"""Every way to forget that the book compares, under one signature.

    edit, cost = make_edit(session, request, METHODS["NPO full"](rate=1e-3, weight=1.0))
    with edit.on(session.model):
        ...

To add one, put a file into this folder that registers a class (`kvw_minimal.method.register`), or
name a module that does in an entry point `kvw_minimal.methods` of your own package; nothing else
changes.

What is the same for all of them:

- *What may change*: the linear maps inside the decoder layers of the language model, the same
  matrices with full weights and with LoRA. Eye, connector, embeddings, norms and head are frozen.
  The head stays because it is tied to the embeddings: training it would move the words of every
  prompt, about anybody.
- *What is learned from*: prompt masked, answer and end of turn supervised (`answer_batches`).
  Image questions keep their picture.
- *How long* (gradients): `steps.EPOCHS` times over the forget set, in steps of eight questions of
  each modality; beside them, where the method wants it, as many retain questions, each seen once.
- AdamW at a constant rate with PyTorch's defaults, no dropout, everything drawn from one seed.

Formulas write CE for the mean cross-entropy of an answer token, NLL for the sum over an answer,
f, r and u for forget, retain and update questions, p0 for the frozen start model.
"""

from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules

from ..method import METHODS, Method, make_edit, method_of, register

for _module in iter_modules(__path__):  # each registers what it holds
    import_module(f"{__name__}.{_module.name}")
for _more in entry_points(group="kvw_minimal.methods"):
    _more.load()

__all__ = ["METHODS", "Method", "make_edit", "method_of", "register"]
