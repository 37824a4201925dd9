"""Floor 5, assembly: what a check of the doctor says. Stdlib only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, and what to do about it where that is not nothing."""

    check: str
    level: Level
    text: str
    fix: str = ""

    def as_json(self) -> dict[str, str | None]:
        """As `--json` prints it."""
        level = self.level.value
        return {"check": self.check, "level": level, "text": self.text, "fix": self.fix or None}


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, text)


def warning(check: str, text: str, fix: str) -> Finding:
    """It works, and may not for ever."""
    return Finding(check, Level.WARNING, text, fix)


def error(check: str, text: str, fix: str) -> Finding:
    """It does not work."""
    return Finding(check, Level.ERROR, text, fix)


def worst(findings: Iterable[Finding]) -> Level:
    """The level of all of them together."""
    levels = {finding.level for finding in findings}
    return next((one for one in (Level.ERROR, Level.WARNING) if one in levels), Level.OK)
