"""Proofs: programs that anyone can run. Each has a control that must fail, or it is blind."""
