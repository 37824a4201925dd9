"""The table of log lines (`receiver.log.LINES`, docs/observability.md) against the code.

Beside this, every line that a test's receiver writes is held to it (`tests.doubles.undocumented`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
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


def written(text: str) -> Iterator[Written]:
    nodes = [*ast.walk(ast.parse(text))]
    texts = {node.value for node in nodes if isinstance(node, ast.Constant)}
    texts |= {node.arg for node in nodes if isinstance(node, ast.keyword)}
    for node in nodes:
        func = node.func if isinstance(node, ast.Call) and node.args else None
        name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
        if not (isinstance(node, ast.Call) and func and name in LEVELS):
            continue
        event = getattr(node.args[0], "value", None)
        is_ours = name in ("_notice", "write") or ast.unparse(func).endswith(f"log.{name}")
        if is_ours and isinstance(event, str):
            fields = {keyword.arg for keyword in node.keywords if keyword.arg}
            yield Written(event, LEVELS[name], frozenset(fields), frozenset(map(str, texts)))


@cache
def calls() -> list[Written]:
    """Every call of the receiver's that writes a line."""
    texts = [path.read_text() for path in (ROOT / "receiver").rglob("*.py")]
    writing = [text for text in texts if "log." in text or "_notice(" in text]  # the others can't
    return [line for text in writing for line in written(text)]


def test_every_event_that_is_written_is_documented_and_no_other() -> None:
    assert {line.event for line in calls()} == {line.event for line in LINES}
    assert len({line.event for line in LINES}) == len(LINES)


def test_an_event_has_the_fields_and_levels_that_are_documented() -> None:
    for line in LINES:
        found = [call for call in calls() if call.event == line.event]
        fields = {*line.fields.split()}
        for call in found:
            assert call.fields <= fields, line.event
            assert call.level is None or call.level in line.levels.split(), line.event
        texts = frozenset[str]().union(*(call.texts for call in found))
        assert fields - {"exception"} <= texts, line.event


def test_the_judge_of_lines_sees_what_is_not_documented() -> None:
    assert undocumented({"event": "new", "log_level": "info"}) == {"new"}
    assert undocumented({"event": "attempt", "delivery": "x", "secret": "y"}) == {"secret"}
    assert undocumented({"event": "attempt", "delivery": "x", "log_level": "info"}) == set()
