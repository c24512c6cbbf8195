"""Boot kernels, run scenarios in them, compare them with the model."""
