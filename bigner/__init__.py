"""bigner: sharded fine-tuning of token-classification models, with exact scores."""

__version__ = "0.1.0"
