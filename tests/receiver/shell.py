"""The `reelhook` command as a shell sees it: exit code, what is data, what is for people."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.doubles import LIMIT_S, ROOT, environment


@dataclass(frozen=True)
class Said:
    """What a command gave back."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> list[Any]:
        """Its documents."""
        return [json.loads(line) for line in self.out.splitlines()]


def reelhook(folder: Path, *arguments: str, given: str = "", **environ: str) -> Said:
    """Run a command whose data directory is under `folder`."""
    found = subprocess.run(
        [sys.executable, "-m", "receiver", *arguments],
        cwd=ROOT,
        env=environment(folder, **environ),
        input=given,
        capture_output=True,
        text=True,
        timeout=2 * LIMIT_S,
        check=False,
    )
    assert "Traceback" not in found.stderr, found.stderr
    return Said(found.returncode, found.stdout, found.stderr)
