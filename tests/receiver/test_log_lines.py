"""The table of log lines (`receiver.log.LINES`, docs/observability.md) against the code.

Beside this, every line that a test's receiver writes is held to it (`tests.doubles.undocumented`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from receiver.log import LINES
from tests.doubles import undocumented
from tests.test_docs import ROOT

LEVELS: Final = {
    **{level: level for level in ("debug", "info", "warning", "error")},
    "exception": "error",
    "_notice": "warning",
    "write": None,  # one of several, chosen before
}


@dataclass(frozen=True)
class Written:
    """A call that writes a line."""

    event: str
    level: str | None
    fields: frozenset[str]
    texts: frozenset[str]  # of its module, names of keywords too


def written(path: Path) -> Iterator[Written]:
    nodes = [*ast.walk(ast.parse(path.read_text()))]
    texts = {node.value for node in nodes if isinstance(node, ast.Constant)}
    texts |= {node.arg for node in nodes if isinstance(node, ast.keyword)}
    for node in nodes:
        if not (
            isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)
        ):
            continue
        func, event = node.func, node.args[0].value
        name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
        is_ours = name in ("_notice", "write") or ast.unparse(func).endswith((f"log.{name}",))
        if name in LEVELS and is_ours and isinstance(event, str):
            fields = {keyword.arg for keyword in node.keywords if keyword.arg}
            yield Written(event, LEVELS[name], frozenset(fields), frozenset(map(str, texts)))


FOUND: Final = [line for path in (ROOT / "receiver").rglob("*.py") for line in written(path)]


def test_every_event_that_is_written_is_documented_and_no_other() -> None:
    assert {line.event for line in FOUND} == {line.event for line in LINES}
    assert len({line.event for line in LINES}) == len(LINES)


def test_an_event_has_the_fields_and_levels_that_are_documented() -> None:
    for line in LINES:
        calls = [found for found in FOUND if found.event == line.event]
        fields = {*line.fields.split()}
        for call in calls:
            assert call.fields <= fields, line.event
            assert call.level is None or call.level in line.levels.split(), line.event
        texts = frozenset[str]().union(*(call.texts for call in calls))
        assert fields - {"exception"} <= texts, line.event


def test_the_judge_of_lines_sees_what_is_not_documented() -> None:
    assert undocumented({"event": "new", "log_level": "info"}) == {"new"}
    assert undocumented({"event": "attempt", "delivery": "x", "secret": "y"}) == {"secret"}
    assert undocumented({"event": "attempt", "delivery": "x", "log_level": "info"}) == set()
