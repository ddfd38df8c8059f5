"""Checkpoints of Hugging Face transformers: tensors, configs and names, read and written."""
