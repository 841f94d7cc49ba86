"""The models of this book: how they are found, loaded, and taught the strangers."""

from .catalogue import load, train

__all__ = ["load", "train"]
