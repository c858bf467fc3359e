"""Hostile and broken input: whatever is read is sound, or it is one of our errors."""
