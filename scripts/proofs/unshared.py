"""Two ways to share a database that look right and are not: what the control of `prove cluster`
runs. Answering before the commit is one more, in `scripts.proofs.altered`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from itertools import count
from typing import Final
from unittest.mock import patch

from receiver.store.connection import Connection, Held
from receiver.store.verbs import ledger
from receiver.store.verbs.lanes import Due

LOST: Final = 20  # one delivery in so many


def _claim_without_a_lock() -> None:
    # asyncpg comes with an extra.
    from receiver.store.postgres.connection import PostgresConnection

    holding = PostgresConnection.hold

    def hold(connection: PostgresConnection, what: Held) -> None:
        if what is not Held.CLAIMS:
            holding(connection, what)

    patch.object(PostgresConnection, "hold", hold).start()
    patch.object(PostgresConnection, "skip_locked", "").start()


def _lose_deliveries() -> None:
    queueing, numbers = vars(ledger)["queue"], count(1)

    def queue(connection: Connection, due: Sequence[Due], ordered: Set[int]) -> None:
        queueing(connection, [one for one in due if next(numbers) % LOST], ordered)

    patch.object(ledger, "queue", queue).start()


UNLOCKED: Final = "claims-without-a-lock"
LOSES: Final = "loses-deliveries"
UNSHARED: Final[Mapping[str, Callable[[], None]]] = {
    UNLOCKED: _claim_without_a_lock,
    LOSES: _lose_deliveries,
}
