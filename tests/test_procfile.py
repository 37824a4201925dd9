"""The Procfile as a hosting platform runs it: honcho, a PORT, and a SIGTERM at the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest

ROOT: Final = Path(__file__).parents[1]
COULD_NOT_START: Final = 3
NEEDED: Final = {
    "REELHOOK_PUBLIC_URL": "https://hooks.example.com",
    "REELHOOK_SIGNING_KEYS": "a-key-that-only-this-test-has-0123456789",
    "REELHOOK_ADMIN_TOKEN": "a-token-that-only-this-test-has-0123456789",
}

pytestmark = pytest.mark.process


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def honcho(folder: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """`honcho start web` over our Procfile; ended by force if the test did not."""
    empty = folder / "empty.env"
    empty.touch()
    command = [
        *(sys.executable, "-m", "honcho", "--no-colour", "--no-prefix"),
        *("--env", str(empty), "--procfile", str(ROOT / "Procfile"), "--app-root", str(folder)),
        *("start", "web"),
    ]
    scripts = Path(sys.executable).parent
    path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **environment, "PATH": path, "REELHOOK_DATA_DIR": str(folder / "data")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def until(process: subprocess.Popen[str], words: str) -> str:
    """What it says, up to the line with these words; to the end if it never says them."""
    assert process.stdout is not None
    told = []
    for line in process.stdout:
        told.append(line)
        if words in line:
            break
    return "".join(told)


def test_web_answers_on_the_platforms_port_and_stops_when_told(tmp_path: Path) -> None:
    port = free_port()
    with honcho(tmp_path, {**NEEDED, "RENDER": "true", "PORT": str(port)}) as process:
        assert '"event": "ready"' in until(process, '"event": "ready"')

        answer = httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=30)

    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert "Traceback" not in rest
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)


def test_web_refuses_a_disk_that_is_wiped(tmp_path: Path) -> None:
    environment = {**NEEDED, "DYNO": "web.1", "PORT": str(free_port())}
    with honcho(tmp_path, environment) as process:
        told, _ = process.communicate(timeout=30)

    assert process.returncode == COULD_NOT_START
    assert "Heroku wipes its disk at every restart" in told
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("missing", sorted(NEEDED))
def test_web_names_the_setting_that_is_missing(tmp_path: Path, missing: str) -> None:
    given = {name: value for name, value in NEEDED.items() if name != missing}
    environment = {**given, "RENDER": "true", "PORT": str(free_port())}
    with honcho(tmp_path, environment) as process:
        told, _ = process.communicate(timeout=30)

    assert process.returncode == COULD_NOT_START
    assert f"{missing} is not set" in told
