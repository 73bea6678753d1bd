"""Tells whether the gradients of a model step are right when the step is run over time."""

__version__ = "0.1.0"
