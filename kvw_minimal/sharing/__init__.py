"""What leaves this package and what comes into it: edits for other tools, measurements in parts."""

from .folders import FORMATS, check_request, export
from .measurements import load_measured, save_measured

__all__ = ["FORMATS", "check_request", "export", "load_measured", "save_measured"]
