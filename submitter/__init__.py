"""Reelhook's submitter: what we ask the platforms for.

The public names are imported when they are first used, so that the commands and the simulator,
which need none of them, start fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from submitter.blocking import BlockingSubmitter, BlockingTask
    from submitter.drafts import Draft
    from submitter.errors import SubmitterError
    from submitter.handle import SubmittedTask
    from submitter.submit import Submitter

__all__ = [
    "BlockingSubmitter",
    "BlockingTask",
    "Draft",
    "SubmittedTask",
    "Submitter",
    "SubmitterError",
]

_HOMES = {
    "BlockingSubmitter": "submitter.blocking",
    "BlockingTask": "submitter.blocking",
    "Draft": "submitter.drafts",
    "SubmittedTask": "submitter.handle",
    "Submitter": "submitter.submit",
    "SubmitterError": "submitter.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'submitter' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
