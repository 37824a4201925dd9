"""Floor 2, edges: which endpoints want an event that was told before. stdlib only.

What filters look at is the task as the ledger knows it today: a PUT may have brought its model,
tags and metadata after the event. Its status is the one that was told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from receiver import ids
from receiver.endpoints import Subscription
from receiver.events import ENDPOINT_DISABLED
from receiver.store.verbs.rows import json_of

# Of `events e` and `tasks t`. The parts of a payload are cut out there: it may be a megabyte.
FACTS: Final = (
    "e.type, json_extract(CAST(e.payload AS TEXT), '$.data.task'), t.model, t.tags, t.metadata,"
    f" CASE e.type WHEN '{ENDPOINT_DISABLED}'"
    " THEN json_extract(CAST(e.payload AS TEXT), '$.data.endpoint.id') END"
)


def wanting(
    subscriptions: Iterable[Subscription], project: str, row: Sequence[Any]
) -> list[Subscription]:
    """The subscriptions of a project that want the event of a row of FACTS."""
    *_, disabled = row  # no endpoint is told of its own disabling
    facts = _facts_of(row)
    return [
        one
        for one in subscriptions
        if one.project == project
        and one.wants(str(row[0]), facts)
        and disabled != ids.ENDPOINT + ids.encode(one.endpoint)
    ]


def _facts_of(row: Sequence[Any]) -> Mapping[str, Any]:
    _, told, model, tags, metadata, _ = row
    facts: dict[str, Any] = json_of(told) or {}
    if tags is not None:  # else the task is gone, and what was told is all that is known
        facts |= {"model": model, "tags": json_of(tags), "metadata": json_of(metadata)}
    return facts
