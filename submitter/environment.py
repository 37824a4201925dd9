"""Floor 2, edges: where the ledger is, by the environment and by what a local receiver left.

A receiver on loopback leaves its URL and keys in the data directory for the same user's programs
(receiver/settings.py writes the file). Touches that one file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from platformdirs import user_data_path

LOCAL_URL: Final = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Where the ledger is, and what opens it; no secret in the repr.

    The platforms' own variables are read by submitter/platforms/catalogue.py.
    """

    ledger_url: str
    ledger_token: str
    project: str
    public_url: str  # these two let the submitter mint URLs where there is no ledger
    signing_keys: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Environment(ledger_url={self.ledger_url!r}, project={self.project!r})"


def read(environ: Mapping[str, str]) -> Environment:
    """The variables of docs/settings.md; what is not set comes from the local receiver's file."""
    folder = environ.get("REELHOOK_DATA_DIR")
    local = _local(Path(folder) if folder else user_data_path("reelhook"))
    return Environment(
        ledger_url=environ.get("REELHOOK_URL") or local.get("url") or LOCAL_URL,
        ledger_token=environ.get("REELHOOK_ADMIN_TOKEN") or local.get("admin_token", ""),
        project=environ.get("REELHOOK_PROJECT") or "default",
        public_url=environ.get("REELHOOK_PUBLIC_URL") or local.get("public_url", ""),
        signing_keys=_listed(environ.get("REELHOOK_SIGNING_KEYS") or local.get("signing_keys", "")),
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(entry.strip() for entry in text.split(",") if entry.strip())


def _local(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / "local.json").read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(name): str(value) for name, value in found.items()}
