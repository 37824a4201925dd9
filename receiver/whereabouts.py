"""Floor 0, nouns: where a process runs, so that another one can tell that it ended. Stdlib only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

NOBODY: Final = -1  # is born at no time: no process has the number


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a process runs. `machine` names whose numbers its `pid` is one of, and what `born` is
    counted from, in any unit; both are None where that is not known."""

    host: str
    pid: int
    machine: str | None = None
    born: int | None = None


def is_gone(other: Whereabouts, here: Whereabouts, born: Callable[[int], int | None]) -> bool:
    """Whether another process has certainly ended, as it can be told from `here`.

    `born` says when the process began that has a number here; NOBODY: there is none; None: that
    can't be told. It is asked of a neighbour alone: elsewhere the number is somebody else's.
    """
    if here.machine is None or other.born is None:
        return False
    # The host's name proves nothing, but a machine that was copied while it ran has another one
    # than its copy, and else all the same.
    if (other.machine, other.host) != (here.machine, here.host):
        return False
    found = born(other.pid)
    return found is not None and found != other.born
