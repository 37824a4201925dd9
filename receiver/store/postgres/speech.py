"""Floor 2, edges: SQLite's marks and hints as PostgreSQL writes them. stdlib only.

Statements are written in the SQL that both engines speak. What is left is the shape of the marks
(`?`, `?1`, `:name` for `$1`), the hints that SQLite's planner needs and PostgreSQL has no word for
(INDEXED BY, CROSS JOIN), LIKE that is blind to case, and bytes read as text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from receiver.store.connection import Values

_LITERAL_OR_MARK: Final = re.compile(r"'(?:[^']|'')*'|\?(\d*)|(?<!:):([a-z_][a-z_0-9]*)")
_HINTS: Final = re.compile(r" (?:NOT INDEXED|INDEXED BY \w+)\b")
_BYTES_AS_TEXT: Final = re.compile(r"CAST\((\w+\.payload) AS TEXT\)")
_RETURNS: Final = re.compile(r"\s*(?:SELECT|WITH)\b|.*\bRETURNING\b", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement for PostgreSQL. `names`: whose values its marks stand for, if they had names."""

    sql: str
    names: tuple[str, ...]
    returns: bool  # rows come back
    counted: str = ""  # the same with one row for each that it changed

    def bind(self, values: Values) -> Sequence[Any]:
        """The values in the order of the marks."""
        if isinstance(values, Mapping):
            return [values[name] for name in self.names]
        return list(values)


@lru_cache(maxsize=4_096)
def translated(sql: str) -> Statement:
    """A statement of ours as PostgreSQL takes it."""
    names: list[str] = []
    count = 0

    def numbered(found: re.Match[str]) -> str:
        nonlocal count
        number, name = found.groups()
        if number is None and name is None:
            return found[0]
        if name is not None:
            if name not in names:
                names.append(name)
            return f"${names.index(name) + 1}"
        count += 1
        return f"${number or count}"

    text = _HINTS.sub("", sql).replace("CROSS JOIN", "JOIN").replace(" LIKE ?", " ILIKE ?")
    text = _BYTES_AS_TEXT.sub(r"convert_from(\1, 'UTF8')", text)
    text = _LITERAL_OR_MARK.sub(numbered, text)
    returns = _RETURNS.match(text) is not None
    counted = f"{text} RETURNING 1" if text.startswith(("UPDATE", "DELETE")) and not returns else ""
    return Statement(text, tuple(names), returns, counted)
