"""The models of this book: how they are found and loaded."""

from .catalogue import load

__all__ = ["load"]
