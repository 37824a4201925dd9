"""Floor 2, edges: what Linux says of the processes beside this one, in /proc. stdlib only.

Elsewhere it says nothing, and so nobody is taken for ended (receiver/whereabouts.py).
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from receiver.whereabouts import NOBODY, Whereabouts

PROC: Final = Path("/proc")
_BORN: Final = 19  # of the fields behind the name: the 22nd of all (man 5 proc_pid_stat)


def here(proc: Path = PROC) -> Whereabouts:
    """Where this process runs."""
    host, pid = socket.gethostname(), os.getpid()
    with suppress(OSError, ValueError, IndexError):
        if _own_numbers(proc) == [pid]:
            return Whereabouts(host, pid, _machine(proc), _born(proc, pid))
    return Whereabouts(host, pid)


def born(pid: int, proc: Path = PROC) -> int | None:
    """When the process began that has this number, in ticks since the machine started.

    NOBODY: there is none. None: that can't be told, or it is no time of ours.
    """
    if not _is_there(pid):
        return NOBODY
    with suppress(OSError, ValueError, IndexError):
        return _born(proc, pid)
    return None


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # /proc may hide the processes of other users
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is not ours to signal, or no number of a process
        return True
    return True


def _own_numbers(proc: Path) -> list[int]:
    # From the namespace that /proc is of, inwards to ours: more than one, and it is not of ours.
    for line in (proc / "self/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return [int(number) for number in line.split()[1:]]
    return []


def _machine(proc: Path) -> str:
    # Containers of one machine may have the same numbers for other processes, and start their
    # clocks when they like. A namespace's inode is another one's only after all in it have ended.
    boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink(proc / 'self/ns/pid')} {_time(proc)}"


def _time(proc: Path) -> str:
    try:
        return os.readlink(proc / "self/ns/time")
    except FileNotFoundError:  # before Linux 5.6 all share one
        return ""


def _born(proc: Path, pid: int) -> int:
    # A name may have spaces and brackets in it.
    return int((proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[_BORN])
