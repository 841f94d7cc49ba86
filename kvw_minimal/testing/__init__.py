"""What every method promises, and what says which promises a method of your own keeps."""
