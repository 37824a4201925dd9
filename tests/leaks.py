"""What a secret looks like, and where one may stand: the judge of all that the suite writes.

`tests/taps.py` collects; this decides. A secret may stand where somebody asked for it, once, or
where the design keeps it, and `ALLOWED` names every such place with its reason. Nothing else is
excused: not a test, not a file, not a log level.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SHORTEST: Final = 12  # characters of a key that is looked for literally; shorter ones are words
CONTEXT: Final = 60  # characters shown before a leak

# Each token begins with the base64 of its claims, which begin with version and jti.
_TOKEN: Final = rb"eyJ2IjoxLCJqIjoi[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{43}"
SHAPES: Final = {
    "token": re.compile(_TOKEN),
    # Also one that was altered, encoded or cut on its way.
    "credential in a query": re.compile(rb"[?&](?:sig|apiKey)=[^&\s\"'<>\\[\xe2]{20,}"),
    "endpoint secret": re.compile(rb"wh(?:sec|sk)_[A-Za-z0-9+/]{24,}={0,2}"),
    "API token": re.compile(rb"rhk_[0-9a-hjkmnp-tv-z]{52}"),
    "authorization": re.compile(rb"(?i)\b(?:bearer|basic)\s+[A-Za-z0-9._~+/-]{12,}=*"),
}
KNOWN: Final = "key"  # one that some process was given, found by its text

TOKENS: Final = frozenset({"token", "credential in a query"})
SECRETS: Final = frozenset({"endpoint secret"})
KEYS: Final = frozenset({KNOWN})
API_TOKENS: Final = frozenset({"API token"})
ANYTHING: Final = TOKENS | SECRETS | KEYS | API_TOKENS | {"authorization"}

# (the places, what may stand there, why)
ALLOWED: Final = (
    (r"answer: PUT /v1/tasks/[^/]+ 20[01]", TOKENS, "the webhookURL is what was asked for"),
    (r"answer: POST /v1/tasks/claim 200", TOKENS, "the URL to post the poll's answer to"),
    (r"answer: POST /v1/endpoints 201", SECRETS, "an endpoint's secret is shown here, once"),
    (r"answer: POST /v1/endpoints/[^/]+/rotate-secret 200", SECRETS, "a new secret, likewise"),
    (r"answer: GET /v1/callbacks/[^/]+/body 200", ANYTHING, "the bytes, asked for as they came"),
    (r"answer: POST /v1/api-tokens 201", API_TOKENS, "an API token is shown here, once"),
    (r"stdout: reelhook tokens create", API_TOKENS | KEYS, "an API token is shown here, once"),
    (r"stdout: reelhook callbacks show --raw", ANYTHING, "the bytes, asked for as they came"),
    (r"stdout: reelhook url", TOKENS, "the webhookURL is what was asked for"),
    (r"stdout: reelhook keys new", KEYS, "new keys are what was asked for"),
    (r"stdout: reelhook endpoints (add|rotate-secret)", SECRETS, "a secret is shown here, once"),
    (
        r"stdout: reelhook listen",
        SECRETS,
        "this machine's own, by --print-secret",
    ),
    (r"file: listen\.secret(\.\d+)?", SECRETS, "where this machine keeps its own, at mode 0600"),
    (r"file: local\.json(\.\d+)?", KEYS, "where a local receiver keeps its keys, at mode 0600"),
    (
        r"column: endpoints\.(secrets|private_keys)",
        SECRETS | KEYS,
        "deliveries are signed with it",
    ),
    (r"column: callbacks\.body", ANYTHING, "kept byte for byte, and shown without its tokens"),
)


@dataclass(frozen=True, slots=True)
class Leak:
    """A secret where none may stand; `shown` is what is around it, without it."""

    kind: str
    place: str
    test: str
    shown: str

    def __str__(self) -> str:
        return f"{self.kind} in {self.place} ({self.test or 'session'}): {self.shown}"


def leaks_in(
    text: bytes, place: str, test: str = "", known: Iterable[bytes] = ()
) -> Iterator[Leak]:
    """Each kind of secret that the text shows and its place does not allow, once."""
    for kind, found in _found(text, known):
        if not _allowed(kind, place):
            yield Leak(kind, place, test, _around(text, found))


def _found(text: bytes, known: Iterable[bytes]) -> Iterator[tuple[str, tuple[int, int]]]:
    for kind, shape in SHAPES.items():
        if match := shape.search(text):
            yield kind, match.span()
    for secret in known:
        if (start := text.find(secret)) >= 0:
            yield _kind_of(secret), (start, start + len(secret))


def _kind_of(secret: bytes) -> str:
    # One that a process was given may stand where any of its kind may.
    return next((kind for kind, shape in SHAPES.items() if shape.fullmatch(secret)), KNOWN)


def _allowed(kind: str, place: str) -> bool:
    return any(kind in kinds and re.fullmatch(where, place) for where, kinds, _ in ALLOWED)


def _around(text: bytes, found: tuple[int, int]) -> str:
    before = text[max(0, found[0] - CONTEXT) : found[0]]
    return f"{before.decode(errors='replace')!s}‹{found[1] - found[0]} characters›"


def keys_in(environ: Iterable[tuple[str, str]]) -> set[bytes]:
    """The secrets among some environment's variables."""
    held = re.compile(
        r"(REELHOOK_(SIGNING_KEYS|ADMIN_TOKEN|STATIC_KEYS|ALERT_URL|ENCRYPTION_KEYS|SECRET)|\w+_API_KEY)"
    )
    return {
        entry.encode()
        for name, value in environ
        if held.fullmatch(name)
        for entry in value.split(",")
        if len(entry) >= SHORTEST
    }


def keys_kept_in(folder: Path) -> set[bytes]:
    """What local receivers under a folder made for themselves; tests broke some of the files."""
    kept = re.compile(rb'"(?:signing_keys|admin_token)": "([^"]{%d,})"' % SHORTEST)
    return {
        key
        for path in folder.rglob("local.json")
        if path.is_file()
        for key in kept.findall(path.read_bytes())
    }


def leaks_in_folder(folder: Path, known: Iterable[bytes]) -> Iterator[Leak]:
    """What the files under a folder show: databases by column, all else whole.

    Installed packages are copies of sources: nothing was written there.
    """
    found = (path for path in folder.rglob("*") if "site-packages" not in path.parts)
    for path in sorted(path for path in found if path.is_file()):
        test = str(path.parent.relative_to(folder))
        if path.name.endswith(("-wal", "-shm")):
            continue  # read with their database
        content = path.read_bytes()
        if content.startswith(b"SQLite format 3\x00"):
            yield from leaks_in_database(path, test, known)
        else:
            yield from leaks_in(content, f"file: {path.name}", test, known)


def leaks_in_database(path: Path, test: str, known: Iterable[bytes]) -> Iterator[Leak]:
    """What a database shows, text and bytes, by `table.column`."""
    with tempfile.TemporaryDirectory() as folder:
        # A copy, with its log: looking must not write, and a test may have closed the folder.
        for part in path.parent.glob(f"{path.name}*"):
            shutil.copy(part, folder)
        with closing(sqlite3.connect(f"{folder}/{path.name}")) as connection:
            connection.text_factory = bytes
            try:
                yield from _leaks_in_tables(connection, test, known)
            except sqlite3.DatabaseError:  # one that a test has broken: it is read as a file
                yield from leaks_in(path.read_bytes(), f"file: {path.name}", test, known)


def _leaks_in_tables(
    connection: sqlite3.Connection, test: str, known: Iterable[bytes]
) -> Iterator[Leak]:
    tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    for table in (name.decode() for (name,) in tables):
        rows = connection.execute(f'SELECT * FROM "{table}"')
        places = [f"column: {table}.{column}" for column, *_ in rows.description]
        for row in rows:
            for place, value in zip(places, row, strict=True):
                if isinstance(value, bytes):
                    yield from leaks_in(value, place, test, known)
