"""Using a trained model: its own mathematics, without objectives or optimizers."""
