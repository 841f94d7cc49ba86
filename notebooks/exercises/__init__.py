"""Checks of the exercises, one file a chapter; imported as `kvw_exercises`.

A check prints `not yet`, or what was given beside what was expected. It makes its own small numbers
from a seed, so that it needs no model and no data.
"""
