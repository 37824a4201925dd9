"""Floor 3, flows: fetch the results whose callback never came, and post them to the task's own URL.

The ledger says which tasks are due and leases them to us; the platform is asked within one rate;
its answer goes through the same door as a callback. What became of it is the receiver's to decide,
and when to ask again is the ledger's: a task that gets no answer here comes back by itself.

    claim ── getResponse ── whole? ──────────────────────────────────> post
      │            └ lacking, over, absent ── getTaskDetails ── so? ──> post
      └ <── hand back what was not posted, at the latest before the lease lapses
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from receiver.client import ApiRefused, ClaimedTask, Client, TaskPatch, Unreachable
from submitter.door import base_of
from submitter.errors import KeyRefused, PlatformUnavailable
from submitter.pace import Pace, Sleep, pause_after
from submitter.platforms.answers import LONGEST_WAIT
from submitter.platforms.protocol import Platform, TaskRef
from submitter.platforms.snapshots import Snapshot, Standing, conclusion, unseen

LIMIT: Final = 8  # tasks in work at once
RATE: Final = 5.0  # questions to the platform a second
IDLE: Final = 1.0  # seconds before we ask the ledger again when nothing was due

# A platform that hangs must not outlast the lease: each poll has an end of its own, whatever waits.
LEASE_S: Final = 60
POLL_S: Final = 45.0  # for all of a poll: the turns, both questions, the door
QUESTION_S: Final = 12.0  # for one answer of the platform
PATIENCE_S: Final = 15.0  # for a turn; a longer hold puts the task off
HAND_BACK_S: Final = 2.0
TURNS_S: Final = 4.0  # seconds' worth of turns that a batch may take for its first questions
KEY_PAUSE_S: Final = 600.0  # before a platform that refuses our key is asked again

Post = Callable[[str, bytes], Awaitable[int]]
_OK: Final = 200
_NOT_THERE: Final = 404
_TOO_MANY: Final = 429
_GATEWAY: Final = 500


class Found(StrEnum):
    """What one poll found."""

    POSTED = "posted"  # the platform's answer is in the ledger
    UNKNOWN = "unknown"  # neither the platform nor its archive has such a task
    UNAVAILABLE = "unavailable"  # the platform did not say
    PUT_OFF = "put_off"  # nothing may be asked now; it is due again at once
    REFUSED = "refused"  # the receiver's door did not take the answer


@dataclass(frozen=True, slots=True)
class Polled:
    """One task and what its poll found; `detail` says why nothing was."""

    task: str
    found: Found
    detail: str = ""


class _NoTurn(Exception):  # ends one poll, never leaves this module
    """There is no turn for a question soon."""


def _ignore(_told: object) -> None:
    """For who does not want to hear of it."""


class Reconciler:
    """Polls a platform for one ledger. `tell` hears of every poll."""

    def __init__(
        self,
        platform: Platform,
        ledger: Client,
        post: Post,
        *,
        pace: Pace,
        limit: int = LIMIT,
        tell: Callable[[Polled], None] = _ignore,
    ) -> None:
        self._platform = platform
        self._ledger = ledger
        self._post = post
        self._pace = pace
        self._tell = tell
        # Of a slow rate, fewer: whoever is leased must get its turn while the lease holds.
        self._at_once = max(1, min(limit, int(TURNS_S / pace.interval)))
        self._refusal: KeyRefused | None = None

    async def drain(self) -> None:
        """Poll what is due now, batch after batch, each task once.

        Raises Unreachable and ApiRefused when the ledger gives nothing out, KeyRefused when the
        platform does not let us ask. Ends early when it asks for much patience.
        """
        due_by: datetime | None = None
        while claimed := await self.batch(due_by):
            # By the ledger's own clock.
            due_by = due_by or claimed[0].lease_until - timedelta(seconds=LEASE_S)
            if self._pace.held > LONGEST_WAIT:
                return

    async def batch(self, due_by: datetime | None = None) -> Sequence[ClaimedTask]:
        """Claim some tasks and poll them all at once; which they were. Raises as `drain` does."""
        await self._pace.over_hold()  # a platform that asked for patience gets it before we lease
        claimed = await self._ledger.claim_tasks(
            limit=self._at_once,
            lease_s=LEASE_S,
            due_by=due_by,
            platforms=[self._platform.name],
        )
        polled: dict[str, Polled] = {}
        try:
            await asyncio.gather(*(self._poll(task, polled) for task in claimed))
        finally:
            await self._hand_back(claimed, polled)
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            raise refusal
        return claimed

    async def _poll(self, task: ClaimedTask, polled: dict[str, Polled]) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                found = await self._look(task)
        except TimeoutError:
            found = Polled(task.id, Found.UNAVAILABLE, f"not done within {POLL_S:g} s")
        polled[task.id] = found
        self._tell(found)

    async def _look(self, task: ClaimedTask) -> Polled:
        try:
            found = await self._told(TaskRef(task.id, task.platform_id))
        except _NoTurn:
            return Polled(task.id, Found.PUT_OFF, "the platform asks for patience")
        except PlatformUnavailable as error:
            return self._unavailable(task, error)
        return await self._concluded(task, found)

    async def _told(self, of: TaskRef) -> Snapshot | None:
        now = await self._ask(self._platform.fetch, of)
        if now.standing is Standing.WHOLE:
            return now
        if not self._platform.archives:
            return conclusion(now, None)
        return conclusion(now, await self._ask(self._platform.fetch_archived, of))

    async def _ask(
        self, question: Callable[[TaskRef], Awaitable[Snapshot]], of: TaskRef
    ) -> Snapshot:
        if not await self._pace.turn(PATIENCE_S):
            raise _NoTurn
        try:
            async with asyncio.timeout(QUESTION_S):
                found = await question(of)
        except TimeoutError:
            reason = f"no answer within {QUESTION_S:g} s"
            raise unseen(self._platform.name, of.id, reason) from None
        self._pace.note_answer()
        return found

    def _unavailable(self, task: ClaimedTask, error: PlatformUnavailable) -> Polled:
        if isinstance(error, KeyRefused):
            self._refusal = error
            self._pace.hold(KEY_PAUSE_S)
            return Polled(task.id, Found.PUT_OFF, error.reason)
        status, after = error.http_status, error.retry_after_s
        if status is None or status == _TOO_MANY or status >= 500:
            self._pace.note_trouble(after)
        # It did not look at the task at all, so the task's own backoff does not grow.
        put_off = status == _TOO_MANY or after is not None
        return Polled(task.id, Found.PUT_OFF if put_off else Found.UNAVAILABLE, error.reason)

    async def _concluded(self, task: ClaimedTask, snapshot: Snapshot | None) -> Polled:
        if snapshot is None:
            return Polled(task.id, Found.UNKNOWN)
        refused = ""
        for url in (task.webhook_url, self._within(task.webhook_url)):
            try:
                status = await self._post(url, snapshot.content)
            except OSError as error:
                refused = f"its door does not answer ({error})"
                continue
            if status == _OK:
                await self._note_run(task, snapshot.platform_id)
                return Polled(task.id, Found.POSTED)
            refused = f"its door answered {status}"
            if status != _NOT_THERE and status < _GATEWAY:
                break  # the door itself said no
        return Polled(task.id, Found.REFUSED, refused)

    async def _note_run(self, task: ClaimedTask, run: str | None) -> None:
        """Tell the ledger under which name the platform has a task, if we had to look for it."""
        if run is None or run == task.platform_id:
            return
        with suppress(Unreachable, ApiRefused):  # then the next poll looks for it again
            await self._ledger.change_task(task.id, TaskPatch(platform_id=run))

    def _within(self, webhook_url: str) -> str:
        """The same door at the ledger's own address."""
        return f"{self._ledger.url}/{webhook_url.removeprefix(base_of(webhook_url))}"

    async def _hand_back(self, claimed: Sequence[ClaimedTask], polled: dict[str, Polled]) -> None:
        """End the leases of what was not posted; also when we are told to stop."""
        outcomes = {task.id: found.found for task in claimed if (found := polled.get(task.id))}
        unasked = [t.id for t in claimed if outcomes.get(t.id, Found.PUT_OFF) is Found.PUT_OFF]
        asked = [
            task for task, found in outcomes.items() if found not in (Found.POSTED, Found.PUT_OFF)
        ]
        # What can't be handed back comes back by itself, when the lease lapses.
        with suppress(Unreachable, ApiRefused, TimeoutError):
            async with asyncio.timeout(HAND_BACK_S):
                for tasks, was_polled in ((unasked, False), (asked, True)):
                    if tasks:
                        await self._ledger.release_tasks(
                            tasks, lease_until=claimed[0].lease_until, polled=was_polled
                        )


async def run(
    connect: Callable[[], Client],
    reconciler_of: Callable[[Client], Reconciler],
    *,
    sleep: Sleep,
    note: Callable[[str], None] = _ignore,
) -> None:
    """Reconcile until canceled, whatever the ledger and the platform say.

    `connect` gives the ledger's client, anew after each trouble: a receiver that starts later, or
    elsewhere, is found. `note` hears of a trouble once, and of its end.
    """
    failures, noted = 0, ""
    while True:
        try:
            async with connect() as ledger:
                reconciler = reconciler_of(ledger)
                while True:
                    claimed = await reconciler.batch()
                    if noted:
                        note(f"The receiver at {ledger.url} answers.")
                    failures, noted = 0, ""
                    if not claimed:
                        await sleep(IDLE)
        except KeyRefused as error:
            note(f"{error} It is asked again in {KEY_PAUSE_S / 60:.0f} minutes.")
        except (Unreachable, ApiRefused) as error:
            failures += 1
            if str(error) != noted:
                note(f"Waiting for the receiver. {error}")
            noted = str(error)
            await sleep(pause_after(failures))
