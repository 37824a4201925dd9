"""Floor 2, edges: what is kept, and the only rooms that speak SQL."""
