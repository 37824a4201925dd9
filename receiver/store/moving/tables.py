"""Floor 2, edges: what a move moves, and what tells two tables apart. stdlib only.

A table's digest is the sum of its rows' digests, so that neither engine's order matters, and each
row's is over its values with their kinds and lengths: the same bytes on both sides or not the same.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

REPLACEMENT: Final = "\ufffd"
_MODULUS: Final = 1 << 256


@dataclass(frozen=True, slots=True)
class Table:
    """A table of both engines. `given`: the column whose numbers the database gives itself."""

    name: str
    key: tuple[str, ...]
    given: str = ""
    where: str = ""  # the rows that are moved


TABLES: Final = (
    # Who else is there, when it last could write, and since which release its schema can be used:
    # these are matters of one database, and stay with it.
    Table(
        "meta",
        ("name",),
        where=" WHERE name NOT IN ('ready_at', 'directory', 'compatible_from')",
    ),
    Table("tasks", ("n",)),
    Table("results", ("task_n", "key")),
    Table("callbacks", ("id",)),
    Table("endpoints", ("id",)),
    Table("endpoint_health", ("endpoint_id",)),
    Table("endpoint_hours", ("endpoint_id", "hour", "ok", "within_ms")),
    Table("events", ("seq",), given="seq"),
    Table("deliveries", ("event_id", "endpoint_id")),
    Table("attempts", ("event_id", "endpoint_id", "number")),
    Table("jobs", ("id",)),
    Table("alerts", ("event_id",)),
    Table("login_codes", ("digest",)),
    Table("ended_sessions", ("id",)),
    Table("resends", ("n",), given="n"),
    Table("api_tokens", ("id",)),
    Table("audit", ("seq",), given="seq"),
    Table("answers", ("owner", "key")),
)
# What PostgreSQL alone has, of processes that share it: it begins empty.
SHARED_ONLY: Final = ("processes", "endpoint_allowances", "schema_migrations")


@dataclass(frozen=True, slots=True)
class Sum:
    """How many rows, and their digest."""

    rows: int = 0
    digest: int = 0

    def plus(self, rows: Iterable[Sequence[Any]]) -> Sum:
        """With these rows."""
        count, total = self.rows, self.digest
        for row in rows:
            count += 1
            total += int.from_bytes(hashlib.sha256(_bytes_of(row)).digest(), "big")
        return Sum(count, total % _MODULUS)

    @property
    def text(self) -> str:
        """The digest in hexadecimal digits."""
        return f"{self.digest:064x}"


def _bytes_of(row: Sequence[Any]) -> bytes:
    return b"".join(_value(value) for value in row)


def _value(value: Any) -> bytes:
    if value is None:
        return b"n"
    if isinstance(value, int):
        return b"i%d;" % value
    if isinstance(value, float):
        return b"f" + struct.pack(">d", value)
    if isinstance(value, str):
        data, kind = value.encode(), b"t"
    else:
        data, kind = bytes(value), b"b"
    return b"%c%d:%b" % (kind, len(data), data)


def storable(row: Sequence[Any]) -> tuple[list[Any], int]:
    """A row as PostgreSQL can keep it, and how many of its texts had to be changed for that.

    It has no NUL in a text, and no bytes that are no UTF-8; U+FFFD stands for both.
    """
    found, changed = list(row), 0
    for place, value in enumerate(row):
        if isinstance(value, str):
            text = _storable(value)
            if text is not value:
                found[place] = text
                changed += 1
    return found, changed


def _storable(text: str) -> str:
    if text.isascii():
        return text.replace("\0", REPLACEMENT) if "\0" in text else text
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes that SQLite keeps as a text, and are none
        text = text.encode(errors="surrogateescape").decode(errors="replace")
    return text.replace("\0", REPLACEMENT) if "\0" in text else text
