"""Floors 3 and 4: what operators and programs may ask of the receiver, and the doors to it."""
