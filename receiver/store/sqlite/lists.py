"""Floor 2, edges: lists that have more to them than their conditions. No SQL is run here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from receiver.endpoints import types_like
from receiver.events import RESULT_FAILED, RESULT_SUCCEEDED, TASK_COMPLETED
from receiver.store.protocol import Query
from receiver.store.sqlite.where import Where

EVENT: Final = "SELECT e.*, t.id AS task_id FROM events e LEFT JOIN tasks t ON t.n = e.task_n"
# Nearly all there is. The index of the others is used where its condition stands word for word.
COMMON: Final = (RESULT_SUCCEEDED, RESULT_FAILED, TASK_COMPLETED)
_RARE: Final = f"e.type NOT IN {COMMON}"


def events_of(query: Query) -> tuple[str, Sequence[Any]]:
    """Events, the newest first. What is asked of their task is so as the ledger has it today."""
    where = Where()
    if query.event_type:
        types = types_like(query.event_type)
        where.one_of("e.type", types)
        if not {*types} & {*COMMON}:
            where.add(_RARE)
    where.same("e.project", query.project)
    where.of_task("e.task_n", query.task)
    where.same("t.platform", query.platform)
    where.same("t.model", query.model)
    where.tagged("t.tags", query)
    where.since_until("e.created_at", query)
    where.older(("e.seq",), query)
    return where.list(EVENT, ("e.seq",), query)
