"""Tagging texts that nobody has labelled: words found in them, windows, entities with offsets."""
