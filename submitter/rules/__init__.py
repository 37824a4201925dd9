"""A model's parameter rules as data, and the one checker that reads them (floor 1, pure)."""

from submitter.rules.catalogue import page_of
from submitter.rules.checker import check, check_task, models
from submitter.rules.modern import modern
from submitter.tasks import Finding

__all__ = ["Finding", "check", "check_task", "models", "modern", "page_of"]
