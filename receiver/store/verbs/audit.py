"""Floor 2, edges: a row for each manual action, in the transaction of the action. stdlib only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from receiver.access import AuditEntry, Deed, Note
from receiver.clock import to_datetime
from receiver.errors import Refusal
from receiver.platforms.reading import dumps
from receiver.store.commits import Handler
from receiver.store.protocol import Query
from receiver.store.verbs.rows import Row
from receiver.store.verbs.where import Where
from receiver.store.writer import Transaction, Write

P = TypeVar("P")
R = TypeVar("R")

ORDER = ("seq",)


@dataclass(frozen=True, slots=True)
class _Act(Generic[P, R]):
    """A job of another handler, and what is noted of it."""

    handler: Handler[P, R]
    payload: P
    note: Note


def noting(write: Write, note: Note) -> Write:
    """A `write` that leaves a row of each verb that was not refused."""
    return partial(_noted, write, note)


async def _noted(write: Write, note: Note, handler: Handler[P, R], payload: P, size: int = 0) -> R:
    found: R = await write(perform, _Act(handler, payload, note), size)
    return found


def perform(tx: Transaction, acts: Sequence[_Act[Any, Any]]) -> Sequence[Any]:
    """Do each act, and note it: a handler refuses before it writes, so all of it is there, or
    nothing."""
    return [_perform(tx, act) for act in acts]


def _perform(tx: Transaction, act: _Act[Any, Any]) -> Any:
    (outcome,) = act.handler(tx, [act.payload])
    deed = None if isinstance(outcome, Refusal) else act.note(outcome)
    if deed is not None:
        note(tx, deed)
    return outcome


def note(tx: Transaction, deed: Deed) -> None:
    """Keep a row, and that its request did its work."""
    tx.connection.execute(
        "INSERT INTO audit (at, actor, actor_name, action, target, project, request_id, details)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            deed.at,
            deed.actor,
            deed.actor_name,
            deed.action,
            deed.target,
            deed.project,
            deed.request_id,
            dumps(dict(deed.details)),
        ),
    )
    if deed.once is not None:
        tx.connection.execute(
            "UPDATE answers SET changed = 1 WHERE owner = ? AND key = ?",
            (deed.once.owner, deed.once.key),
        )


def page_of(query: Query) -> tuple[str, Sequence[Any]]:
    """The statement of a list, with its values."""
    where = Where()
    where.same("actor", query.actor)
    where.same("action", query.action)
    where.same("target", query.target)
    where.same("project", query.project)
    where.since_until("at", query)
    where.older(ORDER, query)
    return where.list("SELECT * FROM audit", ORDER, query)


def entry_of(row: Row) -> AuditEntry:
    """A row as the API shows it."""
    return AuditEntry(
        seq=row["seq"],
        at=to_datetime(row["at"]),
        actor=row["actor"],
        actor_name=row["actor_name"],
        action=row["action"],
        target=row["target"],
        project=row["project"],
        request_id=row["request_id"],
        details=json.loads(row["details"]),
    )
