"""lmjax: pre-training of encoders, decoders and encoder-decoders in JAX."""

__version__ = "0.1.0"
