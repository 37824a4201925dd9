"""Floor 0, nouns: the feed: every event at its place in one order, and again when resent. Pure.

A place is written `41`: behind the event with that `seq`; or `41.7`: behind the seventh resend,
which somebody asked for while 41 was the newest event. So whoever knows a place, or an event's
`seq` alone, can go on there, and what is resent comes once more to those who listen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple, Self

from receiver.clock import to_rfc3339
from receiver.endpoints import Subscription, facts_in
from receiver.errors import Invalid
from receiver.platforms.reading import dumps, loads

_PLACE: Final = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,18}))?", re.ASCII)


class Place(NamedTuple):
    """Where somebody stands in the feed: behind an event (`resend` 0), or behind a resend."""

    seq: int
    resend: int = 0

    @classmethod
    def read(cls, text: str) -> Self:
        """A place out of its text. Raises Invalid."""
        found = _PLACE.fullmatch(text)
        if found is None:
            raise Invalid(
                f"{text[:60]!r} is no place in the stream: write an event's seq, or what came as"
                " the id of a message, such as 41 or 41.7.",
                parameter="cursor",
            )
        return cls(int(found[1]), int(found[2] or 0))

    def __str__(self) -> str:
        return f"{self.seq}.{self.resend}" if self.resend else str(self.seq)


START: Final = Place(0)


@dataclass(frozen=True)
class Told:
    """An event at its place in the feed; `resent_at`: it is there once more. In milliseconds."""

    place: Place
    id: str
    seq: int
    type: str
    task_id: str | None
    project: str
    created_at: int
    resent_at: int | None
    payload: bytes

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """What filters look at, as it was told."""
        return facts_in(loads(self.payload))

    @cached_property
    def json(self) -> bytes:
        """One line of JSON. The payload comes last and byte for byte, as endpoints get it."""
        resent_at = None if self.resent_at is None else to_rfc3339(self.resent_at)
        head = dumps(
            {
                "id": self.id,
                "seq": self.seq,
                "type": self.type,
                "task_id": self.task_id,
                "project": self.project,
                "created_at": to_rfc3339(self.created_at),
                "resent_at": resent_at,
                "cursor": str(self.place),
            }
        )
        return head[:-1].encode() + b',"payload":' + self.payload + b"}"

    @cached_property
    def message(self) -> bytes:
        """A message of a `text/event-stream` (WHATWG HTML §9.2.6)."""
        data = b"\ndata: ".join(self.json.splitlines())
        return f"id: {self.place}\nevent: {self.type}\ndata: ".encode() + data + b"\n\n"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a watcher asked for: of one project or (None) all, what an endpoint's filters let by."""

    project: str | None
    subscription: Subscription

    def lets(self, told: Told) -> bool:
        """Whether the watcher is told of it."""
        if self.project is not None and told.project != self.project:
            return False
        if not self.subscription.filters:  # so that no payload is read for nothing
            return self.subscription.wants(told.type, {})
        return self.subscription.wants(told.type, told.facts)
