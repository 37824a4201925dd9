"""Commands as a shell sees them: exit codes, data on stdout, words on stderr."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from dataclasses import dataclass
from typing import Any

from tests import warm
from tests.doubles import ADMIN_TOKEN, LIMIT_S, ROOT
from tests.submitter.stage import API_KEY


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[Any]:
        """stdout, which is JSON and nothing else."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Shell:
    """Runs commands in an environment."""

    environ: dict[str, str]

    def typing(self, text: str, *arguments: str, **environ: str) -> Ended:
        """A command whose stdin is a terminal, at which that text was typed."""
        terminal, end = pty.openpty()
        try:
            os.write(terminal, text.encode())
            return self(*arguments, stdin=end, **environ)
        finally:
            os.close(terminal)
            os.close(end)

    def __call__(self, *arguments: str, stdin: str | int = "", **environ: str) -> Ended:
        given = {"input": stdin} if isinstance(stdin, str) else {"stdin": stdin}
        done = subprocess.run(
            warm.reelhook(*arguments),
            cwd=ROOT,
            env={**self.environ, **environ},
            **given,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        ended = Ended(done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in ended.err, ended.err
        for secret in (API_KEY, ADMIN_TOKEN, "sig="):
            assert secret not in ended.out + ended.err
        return ended
