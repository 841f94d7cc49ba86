"""Export of edits for other tools, and files of measured coefficients.

The module `distributed` measures with several processes. It needs `accelerate`; import it directly.
"""

from ..coefficients_io import load_measured, save_measured
from .exporters import FORMATS, check_request, export_edit
from .reloading import repeat_scores

__all__ = [
    "FORMATS",
    "check_request",
    "export_edit",
    "load_measured",
    "repeat_scores",
    "save_measured",
]
