"""Few-shot chest X-ray classification from a search over self-supervised pretraining."""

__version__ = "0.1.0"
