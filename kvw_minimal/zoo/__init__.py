"""The models of this book, and the function that loads them."""

from .catalogue import load

__all__ = ["load"]
