"""Three ways to deliver that look right and are not: what the control of `prove delivery` runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Final
from unittest.mock import patch

from receiver import app
from receiver.clock import SECOND
from receiver.deliveries import Failure, State
from receiver.delivery import policy
from receiver.store.protocol import Settled
from receiver.store.verbs.store import SqlStore

SHORT_LEASE: Final = 3 * SECOND
FORGOTTEN: Final = 10  # one success in so many


def _take_timeouts_for_success() -> None:
    succeeded = vars(policy)["succeeded"]
    patch.object(
        policy, "succeeded", lambda seen: seen.failure is Failure.TIMEOUT or succeeded(seen)
    ).start()


def _hurry() -> None:
    spread = vars(policy)["_spread"]

    def hurried(seconds: int, jitter: float) -> Any:
        return spread(seconds, jitter) // 2

    patch.object(policy, "_spread", hurried).start()


def _forget() -> None:
    # What is not settled, its lease has to run out for.
    settling, successes = SqlStore.settle, count(1)

    async def settle(store: SqlStore, settled: Settled) -> None:
        if settled.state is State.SUCCEEDED and next(successes) % FORGOTTEN == 0:
            return
        await settling(store, settled)

    patch.object(SqlStore, "settle", settle).start()
    patch.object(app, "lease_of", lambda deadline_s: SHORT_LEASE).start()
    patch.object(app, "check_lease", lambda lease, deadline_s: None).start()


CREDULOUS: Final = "takes-timeouts-for-success"
HURRIED: Final = "hurries"
FORGETFUL: Final = "forgets"
CARELESS: Final[Mapping[str, Callable[[], None]]] = {
    CREDULOUS: _take_timeouts_for_success,
    HURRIED: _hurry,
    FORGETFUL: _forget,
}
