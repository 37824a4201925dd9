"""Floor 4, doors: the API's routes, by subject."""
