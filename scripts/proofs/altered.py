"""The receiver with something altered on purpose: what controls run, and what makes rare things
frequent. `python -m scripts.proofs.altered NAME… serve`; the product has no such options."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from unittest.mock import patch

from receiver import cli
from receiver.callbacks import Arrival, Outcome, Receipt
from receiver.errors import StoreUnavailable
from receiver.store.sqlite import SqliteStore, engine, store
from receiver.store.verbs.store import SqlStore
from scripts.proofs.careless import CARELESS
from scripts.proofs.plain import leave_connections_to_uvicorn
from scripts.proofs.planted import PLANTED
from scripts.proofs.unshared import UNSHARED

SMALL_WAL: Final = 128 << 10  # bytes


def _answer_before_commit() -> None:
    # As gateways do that queue in memory.
    recording, unfinished = SqlStore.record, set[asyncio.Task[Receipt]]()

    async def record(store: SqlStore, arrival: Arrival) -> Receipt:
        task = asyncio.create_task(recording(store, arrival))
        unfinished.add(task)
        task.add_done_callback(unfinished.discard)
        return Receipt(Outcome.RECORDED, len(arrival.items))

    patch.object(SqlStore, "record", record).start()


def _answer_despite_failure() -> None:
    recording = SqlStore.record

    async def record(store: SqlStore, arrival: Arrival) -> Receipt:
        try:
            return await recording(store, arrival)
        except StoreUnavailable:
            return Receipt(Outcome.RECORDED, len(arrival.items))

    patch.object(SqlStore, "record", record).start()
    patch.object(SqliteStore, "admit", lambda _: None).start()


def _sync_seldom() -> None:
    pragmas = [pragma for pragma in store.PRAGMAS if pragma[0] != "synchronous"]
    if len(pragmas) == len(store.PRAGMAS):
        raise SystemExit("The table of pragmas has no line for synchronous; alter it anew.")
    patch.object(store, "PRAGMAS", (*pragmas, ("synchronous", "NORMAL", 1))).start()


def _checkpoint_often() -> None:
    patch.object(engine, "LARGE_WAL", SMALL_WAL).start()


BEFORE_COMMIT: Final = "answers-before-commit"
DESPITE_FAILURE: Final = "answers-despite-failure"
NORMAL: Final = "synchronous-normal"
OFTEN: Final = "checkpoints-often"
PLAIN: Final = "plain-connections"

_ALTERATIONS: Final[Mapping[str, Callable[[], None]]] = {
    BEFORE_COMMIT: _answer_before_commit,
    DESPITE_FAILURE: _answer_despite_failure,
    NORMAL: _sync_seldom,
    OFTEN: _checkpoint_often,
    PLAIN: leave_connections_to_uvicorn,
    **PLANTED,
    **CARELESS,
    **UNSHARED,
}


def altered(*names: str) -> Sequence[str]:
    """The command of a receiver with these alterations, in place of `harness.SERVE`."""
    return (sys.executable, "-m", "scripts.proofs.altered", *names, "serve")


def alter(names: Sequence[str]) -> None:
    """Alter the receiver in this process, before it is assembled."""
    for name in names:
        _ALTERATIONS[name]()


def main() -> None:
    """Alter, then be the `reelhook` command."""
    names = [name for name in sys.argv[1:] if name in _ALTERATIONS]
    alter(names)
    sys.argv = [sys.argv[0], *sys.argv[1 + len(names) :]]
    cli.main()


if __name__ == "__main__":
    main()
