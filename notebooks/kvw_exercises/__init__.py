"""Checks of the exercises, one file a chapter; imported as `kvw_exercises`.

A check prints `not yet`, or that all is right, or a hint, or which case failed, but never what was
expected; it returns whether all is right. It makes its own small numbers from seeds, so that it
needs no model and no data. `python -m kvw_exercises NOTEBOOK ...` runs the checks for a class.
"""
