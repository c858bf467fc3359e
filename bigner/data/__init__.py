"""From data files to batches: readers, tag schemes, windows and the global batch plan."""
