"""Floor 2, edges: a kept callback taken once more, in its own row, or dropped. stdlib only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from receiver.callbacks import Outcome, Receipt, together
from receiver.endpoints import Subscription
from receiver.errors import Conflict, NotFound
from receiver.recording import NextId
from receiver.reprocessing import Reprocessor, Row
from receiver.store.protocol import Reprocessing
from receiver.store.verbs.ledger import Ledger, load
from receiver.store.verbs.prune import look_again
from receiver.store.writer import Transaction


class Reprocess:
    """The verb, over the ledger that records what follows from it."""

    def __init__(
        self,
        ledger: Ledger,
        subscriptions: Callable[[], Sequence[Subscription]],
        next_id: NextId,
    ) -> None:
        self._ledger = ledger
        self._subscriptions = subscriptions
        self._next_id = next_id

    def reprocess(self, tx: Transaction, asked: Reprocessing) -> Receipt:
        """Take a callback's bytes as read anew. Raises NotFound, Conflict; a dry run is undone."""
        if not asked.dry_run:
            return self._reprocess(tx, asked)
        tx.connection.execute("SAVEPOINT dry_run")
        try:
            return self._reprocess(Transaction(tx.connection), asked)
        finally:
            tx.connection.execute("ROLLBACK TO dry_run")
            tx.connection.execute("RELEASE dry_run")

    def _reprocess(self, tx: Transaction, asked: Reprocessing) -> Receipt:
        row = _row(tx, asked.callback)
        first, *others = asked.arrivals
        wanted = set() if first.task_id is None else {first.task_id}
        loaded = load(tx.connection, wanted)
        recorder = Reprocessor(loaded.tasks, self._subscriptions(), self._next_id, row)
        receipt = _accepted(recorder.reprocess(first), first.task_id)
        self._ledger.write(tx, recorder.plan, loaded, asked.now)
        tx.connection.execute(
            "UPDATE callbacks SET outcome = ?, reason = ?, task_n = ? WHERE id = ?",
            (row.outcome, row.reason, loaded.numbers.get(first.task_id or ""), row.id),
        )
        look_again(tx.connection, row.id)
        return together([receipt, *self._ledger.record(tx, others)]) if others else receipt


def delete_callback(tx: Transaction, callback: int) -> None:
    """Drop a callback that brought nothing; its task has room for another. Raises Conflict."""
    row = _row(tx, callback)
    if row.outcome is Outcome.RECORDED:
        raise Conflict("That callback brought results: it goes with its task.")
    deleted = tx.connection.execute(
        "DELETE FROM callbacks WHERE id = ? RETURNING task_n", (callback,)
    ).fetchone()
    if row.is_noise:
        tx.connection.execute("UPDATE tasks SET noise = noise - 1 WHERE n = ?", deleted)


def _row(tx: Transaction, callback: int) -> Row:
    found = tx.connection.execute(
        "SELECT id, task_n IS NOT NULL, outcome, reason, received_at FROM callbacks WHERE id = ?"
        f"{tx.connection.for_update()}",
        (callback,),
    ).fetchone()
    if found is None:
        raise NotFound("That callback is not kept any more.")
    return Row(found[0], bool(found[1]), Outcome(found[2]), *found[3:])


def _accepted(receipt: Receipt, task: str | None) -> Receipt:
    if receipt.outcome is Outcome.REVOKED:
        raise Conflict(f"Task {task} was revoked after this came, so nothing is taken from it.")
    if receipt.outcome is Outcome.LIMITED:
        raise Conflict(f"Task {task} has more results than it can owe, so it takes no new ones.")
    return receipt
