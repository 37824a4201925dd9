"""Floor 0, nouns: the feed as a listener hears it, off a stream or a long poll. Pure.

The other side of `receiver.feed`. An event's payload is cut out byte for byte, so that what is
forwarded is what an endpoint would have got.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from receiver.errors import ReelhookError

LONGEST: Final = 16 << 20  # bytes of a message; a payload has a few megabytes at most
_PAYLOAD: Final = b',"payload":'


class NotTheFeed(ReelhookError):
    """What came is not what a receiver of this release tells."""

    code = "not_the_feed"


@dataclass(frozen=True, slots=True)
class Heard:
    """An event that was told; `resent`: once more. `body` are the bytes that endpoints get."""

    id: str
    type: str
    task_id: str | None
    resent: bool
    body: bytes = field(repr=False)

    @classmethod
    def read(cls, text: bytes) -> Heard:
        """An event out of its line of JSON. Raises NotTheFeed."""
        try:
            told: dict[str, Any] = json.loads(text)
            return cls(
                id=str(told["id"]),
                type=str(told["type"]),
                task_id=told["task_id"],
                resent=told["resent_at"] is not None,
                # In front of it stand texts in which every quote is escaped.
                body=text.partition(_PAYLOAD)[2][:-1],
            )
        except (ValueError, KeyError, TypeError):
            raise NotTheFeed from None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the stream: where to go on from here, and an event if it is about one."""

    place: str | None
    heard: Heard | None


class Messages:
    """Cuts a stream into messages (WHATWG HTML §9.2.6), whatever pieces it comes in."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, piece: bytes) -> list[Message]:
        """The messages that are complete with this piece. Raises NotTheFeed."""
        # Our lines end with a line feed alone. No other kind of line end may be looked for: a
        # payload has all that Unicode knows.
        *whole, self._rest = (self._rest + piece).split(b"\n\n")
        if len(self._rest) > LONGEST:
            raise NotTheFeed("A message of the stream has no end.")
        return [_message(text) for text in whole]


def _message(text: bytes) -> Message:
    place: str | None = None
    kind, data = b"", list[bytes]()
    for line in text.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"id":
            place = value.decode("utf-8", "replace")
        elif name == b"event":
            kind = value
        elif name == b"data":
            data.append(value)
    is_event = data and kind != b"problem"  # why it ends; whoever asks again is told the same
    return Message(place, Heard.read(b"\n".join(data)) if is_event else None)


def page_of(body: bytes) -> tuple[list[Heard], str]:
    """The events of a long poll's answer, and where to go on. Raises NotTheFeed."""
    try:
        text = body.decode()
        place = str(json.loads(text)["next_cursor"])
        return [Heard.read(part.encode()) for part in _parts(text)], place
    except (ValueError, KeyError, TypeError):
        raise NotTheFeed from None


def _parts(text: str) -> list[str]:
    # Each object of the list as it is written.
    found, at, decoder = list[str](), text.index("[") + 1, json.JSONDecoder()
    while text[at] == "{":
        _, end = decoder.raw_decode(text, at)
        found.append(text[at:end])
        at = end + (text[end] == ",")
    return found
