"""What leaves this package and what comes into it: edits for other tools, measurements in parts.

`sharing.parts` measures by many processes; it needs `accelerate`, and is imported for itself.
"""

from .folders import FORMATS, check_request, export
from .measurements import load_measured, save_measured

__all__ = ["FORMATS", "check_request", "export", "load_measured", "save_measured"]
