"""The PostgreSQL server of a test run.

Where Debian's package is missing its tests are skipped, and a run that says REELHOOK_CI fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from scripts.proofs.postgres import NotInstalled, Server, private, programs

__all__ = ["Server", "programs", "running"]


@contextmanager
def running() -> Iterator[Server]:
    """A server, while inside. Skips where there is none to run."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(private())
        except NotInstalled as reason:
            pytest.skip(str(reason))
        yield server
