"""Floor 4, doors: the dashboard, pages for people over the use cases that the API has."""
