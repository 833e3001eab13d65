"""Public data sets, read into one tidy table each. Nothing is shipped: the files are the user's."""
