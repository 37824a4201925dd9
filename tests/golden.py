"""The bodies that platforms' documents show, kept in tests/corpus/PLATFORM/callbacks.

Their ids, numbers and shapes are the documents'. `index.json` says where each stands and what is
in it; `repaired` marks what is no JSON in its document, `constructed` what a schema or a table
alone describes. Requests stand beside them, in tests/corpus/PLATFORM/requests.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from receiver.tokens import Source

CORPUS: Final = Path(__file__).parent / "corpus"


@dataclass(frozen=True, slots=True)
class Golden:
    """One body. `items` has kind, task, key, category and cost (micro-dollars) as far as each has
    them; `src` is on whose word it comes."""

    platform: str
    id: str
    file: str
    source: str
    src: Source
    body: bytes
    items: list[dict[str, Any]]
    repair: str | None
    constructed: bool

    @property
    def kinds(self) -> list[str]:
        """What its items are."""
        return [item["kind"] for item in self.items]

    @property
    def task(self) -> str | None:
        """The task that it names, if it names one."""
        return next((item["task"] for item in self.items if "task" in item), None)

    def __str__(self) -> str:
        return f"{self.platform}-{self.file.removesuffix('.json')}"


def folder(platform: str) -> Path:
    """Where a platform's bodies are."""
    return CORPUS / platform / "callbacks"


@cache
def golden(platform: str) -> tuple[Golden, ...]:
    """A platform's bodies; none for one that has no index."""
    index = folder(platform) / "index.json"
    entries = json.loads(index.read_text()) if index.exists() else []
    return tuple(
        Golden(
            platform=platform,
            id=entry["id"],
            file=entry["file"],
            source=entry["source"],
            src=Source(entry["src"]),
            body=(folder(platform) / entry["file"]).read_bytes(),
            items=entry["items"],
            repair=entry["repair"] if entry.get("repaired") else None,
            constructed=entry.get("constructed", False),
        )
        for entry in entries
    )
