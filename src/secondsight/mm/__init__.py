"""The model of Linux memory management; a module for each kernel source it models."""
