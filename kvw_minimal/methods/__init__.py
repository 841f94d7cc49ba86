"""The methods that the book compares, under one signature.

    edit, cost = make_edit(session, request, METHODS["NPO full"](rate=1e-3, weight=1.0))
    with edit.on(session.model):
        ...

Every class that `kvw_minimal.list_methods` names can be imported from here:
`from kvw_minimal.methods import LLMSurgery`.

To add a method, put a file into this folder that registers a class (`kvw_minimal.method.register`).
Or register it in a module of your own package, and name this module in an entry point
`kvw_minimal.methods`. Nothing else changes.

All methods share these rules:

- *Trainable weights*: the linear maps inside the decoder layers of the language model, the same
  matrices with full weights and with LoRA. Vision tower, connector, embeddings, norms and head are
  frozen. The head is tied to the embeddings: training it would change the words of every prompt.
- *Supervision*: the prompt is masked; answer and end of turn are supervised (`answer_batches`).
  Image questions keep their picture.
- *Length* (gradients): `training.EPOCHS` epochs over the forget set, in steps of eight questions of
  each modality; if the method needs them, with as many retain questions, each seen once.
- *Optimiser*: AdamW at a constant rate with PyTorch's defaults, no dropout, one seed.

In formulas CE is the mean cross-entropy of an answer token and NLL the sum over an answer; f, r and
u are forget, retain and update questions; p0 is the frozen start model.
"""

from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules

from ..method import METHODS, Method, make_edit, method_of, register

for _module in iter_modules(__path__):  # each file registers its methods
    import_module(f"{__name__}.{_module.name}")
for _more in entry_points(group="kvw_minimal.methods"):
    _more.load()


def __getattr__(name: str) -> type[Method]:
    """The class of a registered method, wherever its module is; the shams share one name."""
    kinds = [kind for kind in METHODS.values() if kind.__name__ == name]
    if len(kinds) != 1:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return kinds[0]


__all__ = ["METHODS", "Method", "make_edit", "method_of", "register"]
