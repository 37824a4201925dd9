"""Floor 3, flows: alerts. What the receiver has to say about itself goes into the log and to a URL.

Each operational event is a line of the log once it is committed. If there is an URL it is also
POSTed there, through the guard and the sender of deliveries, and tried a few times. Endpoints that
want these events get them like any other, for days: who must miss none registers one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from receiver.clock import SECOND, Clock
from receiver.deliveries import Outcome
from receiver.delivery.policy import parse_retry_after, succeeded
from receiver.events import sentence
from receiver.store.protocol import Alert, Store

MOST: Final = 100  # alerts that are read at once
PAUSES: Final = (5, 30, 120)  # seconds between the tries of the alert at whose turn it is
LONGEST_PAUSE: Final = 300  # seconds, whatever Retry-After says: others wait behind it


class Sends(Protocol):
    """One HTTP try; a remote failure is a value."""

    async def send(self, url: str, body: bytes, headers: dict[str, str]) -> Outcome: ...


class Journal(Protocol):
    """Writes error lines: of what happened, and of alerts that could not be sent."""

    def tell(self, payload: Mapping[str, Any]) -> None: ...
    def give_up(self, alerts: Sequence[Alert], outcome: Outcome) -> None: ...


class Alerts:
    """Tells whoever runs the receiver. `url` empty: by the log alone."""

    def __init__(
        self, store: Store, sender: Sends, url: str, *, clock: Clock, journal: Journal
    ) -> None:
        self._store = store
        self._sender = sender
        self._url = url
        self._clock = clock
        self._journal = journal
        self._told = ""  # the last alert that the log has; ids sort by time
        self._tries = 0
        self._not_before = 0

    async def tick(self) -> int:
        """Tell of what is new, and send what may be sent now; how many are dealt with."""
        alerts = await self._store.alerts(MOST)
        for alert in alerts:
            if alert.id > self._told:
                self._journal.tell(alert.payload)
                self._told = alert.id
        dealt = await self._send(alerts) if self._url else [alert.id for alert in alerts]
        if dealt:
            await self._store.drop_alerts(dealt)
        return len(dealt)

    async def _send(self, alerts: Sequence[Alert]) -> list[str]:
        dealt: list[str] = []
        if self._clock() < self._not_before:
            return dealt
        for alert in alerts:
            headers = {"content-type": "application/json", "webhook-id": alert.id}
            outcome = await self._sender.send(self._url, body_of(alert.payload), headers)
            if not succeeded(outcome):
                return dealt + self._after_failure(alerts[len(dealt) :], outcome)
            self._tries = 0
            dealt.append(alert.id)
        return dealt

    def _after_failure(self, waiting: Sequence[Alert], outcome: Outcome) -> list[str]:
        if self._tries == len(PAUSES):
            # All that wait: each of them would wait for as long again, and news with them.
            self._tries = 0
            self._journal.give_up(waiting, outcome)
            return [alert.id for alert in waiting]
        now = self._clock()
        asked = parse_retry_after(outcome.retry_after, now) if outcome.retry_after else None
        pause = max(PAUSES[self._tries] * SECOND, asked or 0)
        self._not_before = now + min(pause, LONGEST_PAUSE * SECOND)
        self._tries += 1
        return []


def body_of(payload: Mapping[str, Any]) -> bytes:
    """What is POSTed: the event without its task, and `text`, which chats show (Slack's form)."""
    data = {name: value for name, value in payload["data"].items() if name != "task"}
    return json.dumps({"text": sentence(payload), **payload, "data": data}).encode()
