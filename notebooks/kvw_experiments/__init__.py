"""The experiments of this book: what its stored numbers, figures and tables are made by."""
