"""``bigner search``: which values of some fields give the best model."""
