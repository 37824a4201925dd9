"""Reelhook's receiver: what comes in, what is kept, what goes out."""

__version__ = "0.1.0"
