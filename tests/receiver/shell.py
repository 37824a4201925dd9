"""The `reelhook` command as a shell sees it: exit code, what is data, what is for people."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import warm
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
    return run(folder, warm.reelhook(*arguments), given=given, **environ)


def run(folder: Path, command: Sequence[str], *, given: str = "", **environ: str) -> Said:
    """Run a program as `reelhook` is run."""
    found = subprocess.run(
        command,
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
