"""A command that is forked from a warm process is what one that was started cold is."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import warm
from tests.doubles import LIMIT_S, ROOT, environment

pytestmark = pytest.mark.process

COLD = [sys.executable, "-m", "receiver"]


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["validate", "pixverse:1@6", "prompt=x"], ""),
        (["validate", "-", "--json"], '{"model": "pixverse:1@6", "duration": 99}'),
        (["tasks", "list", "--status"], ""),
        (["url", "no-uuid", "--platform", "runware"], ""),
    ],
)
def test_it_says_and_ends_as_a_cold_one(tmp_path: Path, words: list[str], given: str) -> None:
    def said(command: list[str]) -> tuple[int, bytes, bytes]:
        found = subprocess.run(
            command,
            cwd=ROOT,
            env=environment(tmp_path, REELHOOK_URL="http://127.0.0.1:1", COLUMNS="70"),
            input=given.encode(),
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
        return found.returncode, found.stdout, found.stderr

    assert said(warm.reelhook(*words)) == said([*COLD, *words])


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_who_ends_it_ends_the_command(tmp_path: Path, how: signal.Signals) -> None:
    """Its end of the pipe closes with the command alone."""
    reading, writing = os.pipe()
    command = warm.reelhook("simulate", "--port", "0")
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(tmp_path), stdout=writing, stderr=subprocess.DEVNULL
    ) as process:
        os.close(writing)
        with open(reading, "rb") as told:
            assert b"127.0.0.1" in told.readline()
            process.send_signal(how)
            assert told.read() == b""
        assert process.wait(LIMIT_S) == (0 if how is signal.SIGTERM else -how)
    assert is_served()


@pytest.mark.parametrize("order", [b"", b'{"argv"', b"{}"])
def test_who_is_killed_while_it_asks_ends_nobody_else(order: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(warm.reelhook()[-1])
        client.sendall(order)
    assert is_served()


def test_who_is_killed_before_it_is_answered_ends_nobody_else(tmp_path: Path) -> None:
    for _ in range(5):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(warm.reelhook()[-1])
            order = {"argv": ["--version"], "env": environment(tmp_path), "cwd": str(ROOT)}
            with open(os.devnull, "r+b") as nothing:
                files = [nothing.fileno()] * 3
                socket.send_fds(client, [json.dumps(order).encode() + b"\n"], files)
        assert is_served()


def is_served() -> bool:
    """Whether the next command is run."""
    command = warm.reelhook("--version")
    return subprocess.run(command, capture_output=True, timeout=LIMIT_S).returncode == 0
