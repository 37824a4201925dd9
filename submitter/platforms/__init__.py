"""Floor 2, edges: the platforms as we ask them, one file each."""
