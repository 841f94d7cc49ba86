"""Rows of scores, one schema everywhere: under which condition a model was asked."""

#: the model as it is; with an edit on; with one made for others; a model never taught the forgotten
CONDITIONS = ("vanilla", "edited", "sham", "oracle")
