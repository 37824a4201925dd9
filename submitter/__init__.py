"""Reelhook's submitter: what we ask the platforms for."""
