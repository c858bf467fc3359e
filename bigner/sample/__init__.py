"""The embedded sample: a generated corpus, a small tokenizer and model, and run files on them."""
