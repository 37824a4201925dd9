"""Floor 4, doors: what the API says of itself, for machines and for people."""
