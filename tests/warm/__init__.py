"""Runs of `reelhook` that need not import anything: forked from a process that has imported it all.

A command spends half a second on imports, twice that while coverage looks on, and the suite runs
hundreds. Each is still a process with arguments, environment, folder, files and an exit status of
its own: `client.py` is the one that a test starts, and hands all that to what `server.py` forks.
What has to be seen from the first import on (its time, what it pulls in) is started cold, as are
receivers and workers, whose number and end matter.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from shutil import rmtree
from threading import Lock
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CLIENT: Final = str(Path(__file__).with_name("client.py"))
_ASKING: Final = Lock()  # of several threads, one starts the server


def reelhook(*arguments: str) -> list[str]:
    """What to start for `reelhook ARGUMENTS`."""
    with _ASKING:
        _, folder = _server()
    return [sys.executable, "-I", "-S", CLIENT, str(folder / "socket"), *arguments]


def end() -> None:
    """End the server, if there is one."""
    if _server.cache_info().currsize:
        server, folder = _server()
        with server:
            server.communicate()  # the end of its stdin is its own
        rmtree(folder)
        _server.cache_clear()


@cache
def _server() -> tuple[subprocess.Popen[bytes], Path]:
    """The server of this process, and where its socket is."""
    folder = Path(tempfile.mkdtemp(prefix="reelhook-warm-"))
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.warm.server", str(folder / "socket")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    return server, folder
