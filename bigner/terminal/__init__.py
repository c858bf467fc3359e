"""What the command line shows besides results: its guide, examples, completion; torch-free."""
