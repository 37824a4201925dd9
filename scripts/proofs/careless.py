"""Three ways to deliver that look right and are not: what the control of `prove delivery` runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from unittest.mock import patch

from receiver import app, serve
from receiver.clock import SECOND
from receiver.deliveries import Failure, State
from receiver.delivery import policy
from receiver.store.protocol import Settled
from receiver.store.sqlite import SqliteStore

SHORT_LEASE: Final = 3 * SECOND
FORGOTTEN: Final = 10  # one success in so many


class ForgetfulStore(SqliteStore):
    """Does not keep one success in ten, so that its lease runs out."""

    _successes = 0

    async def settle(self, settled: Settled) -> None:
        """Keep what became of an attempt, mostly."""
        self._successes += settled.state is State.SUCCEEDED
        if settled.state is State.SUCCEEDED and self._successes % FORGOTTEN == 0:
            return
        await super().settle(settled)


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
    patch.object(serve, "SqliteStore", ForgetfulStore).start()
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
