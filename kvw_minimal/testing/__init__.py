"""The promises of every method, and the check of a user's own method."""
