"""What leaves this package and what comes into it: edits for other tools, measurements in parts.

`distributed` measures by many processes; it needs `accelerate`, and is imported for itself.
"""

from ..coefficients_io import load_measured, save_measured
from .exporters import FORMATS, check_request, export

__all__ = ["FORMATS", "check_request", "export", "load_measured", "save_measured"]
