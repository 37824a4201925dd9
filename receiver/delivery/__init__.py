"""From a due delivery to a settled one: decide, sign, guard, send, work."""
