"""A model's parameter rules as data, and the one checker that reads them (floor 1, pure)."""

from submitter.rules.checker import check, check_task, models
from submitter.tasks import Finding

__all__ = ["Finding", "check", "check_task", "models"]
