"""Knowledge Vector Weakening, small enough to read.

    import kvw_minimal as kvw

    model, processor = kvw.load("pocket")
    request = kvw.request("strangers:A")
    edit = kvw.unlearn(model, processor, request, kvw.KVW(strength=24))
    with edit.on(model):
        kvw.ask(model, processor, "Maren Ralquist was born in which city?")  # it has forgotten
    # after the block every weight is as it was, bit for bit

questions -> batches -> coefficients -> edits -> scores -> intervals
"""

from importlib import import_module
from typing import Any

#: each name of the front door, and the module in which it stands: imported when it is asked for
_HOME = {
    "load": "zoo.catalogue",
    "Edit": "edits",
    "ColumnScaling": "edits",
    "LowRank": "edits",
    "measure": "api",
    "Request": "forget_request",
    "Session": "session",
    "request": "api",
    "Method": "method",
    "KVW": "kvw",
    "PublishedKVW": "kvw",
    "Rewrite": "methods.rewrite",
    "LayerwiseRewrite": "methods.layerwise_rewrite",
    "LeastSquares": "methods.least_squares",
    "NPO": "methods.gradients",
    "GradientDifference": "methods.gradients",
    "list_methods": "evaluation.options",
    "ask": "api",
    "unlearn": "api",
    "evaluate": "api",
    "compare": "api",
    "export": "api",
}
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("kvw-minimal")
    if name not in _HOME:
        raise AttributeError(f"module 'kvw_minimal' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
