"""Floor 0, nouns: ids that are prefixed and sort by time. Stdlib only.

An id is a 63-bit integer (42 bits of milliseconds, 21 of entropy), so it is a rowid in SQLite and
a bigint in PostgreSQL; on the wire it is a prefix and 13 characters of Crockford's base 32.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from receiver.errors import NotFound

ENTROPY_BITS: Final = 21
STEP_BITS: Final = 16  # of 21: a thirtieth of a millisecond
WIDTH: Final = 13
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = [a + b for a in _ALPHABET for b in _ALPHABET]
_VALUES: Final = {character: value for value, character in enumerate(_ALPHABET)}

CALLBACK, RESULT, EVENT, DELIVERY, ATTEMPT, ENDPOINT = "cb_", "res_", "evt_", "dlv_", "att_", "ep_"
JOB, API_TOKEN = "job_", "tok_"


class IdSource:
    """Strictly increasing ids. `entropy(bits)` gives random bits; not safe across threads.

    `is_shared`: others give ids as well. Two who go on above the same id, since both of their
    clocks are behind it, must not give the same ones all the time.
    """

    def __init__(self, entropy: Callable[[int], int], *, is_shared: bool = False) -> None:
        self._entropy = entropy
        self._is_shared = is_shared
        self._last = 0

    def go_on(self, last: int) -> None:
        """Give only ids above `last`, though the clock may have been ahead when that was made."""
        self._last = max(self._last, last)

    def next(self, now_ms: int) -> int:
        """An id of this moment, or just above the last one if the clock stands or steps back."""
        candidate = (now_ms << ENTROPY_BITS) | self._entropy(ENTROPY_BITS)
        self._last = candidate if candidate > self._last else self._last + self._step()
        return self._last

    def _step(self) -> int:
        return 1 + self._entropy(STEP_BITS) if self._is_shared else 1


def encode(number: int) -> str:
    """13 characters that sort as the numbers do."""
    high, low = divmod(number, 1 << 30)
    pairs = _PAIRS
    return (
        _ALPHABET[high >> 30]
        + pairs[high >> 20 & 1023]
        + pairs[high >> 10 & 1023]
        + pairs[high & 1023]
        + pairs[low >> 20]
        + pairs[low >> 10 & 1023]
        + pairs[low & 1023]
    )


def decode(text: str) -> int:
    """The number behind 13 characters. Raises ValueError."""
    if len(text) != WIDTH:
        raise ValueError("an id has 13 characters")
    number = 0
    for character in text:
        if character not in _VALUES:
            raise ValueError("an id is written in Crockford's base 32, lower case")
        number = number << 5 | _VALUES[character]
    if number >= 1 << 63:
        raise ValueError("an id fits in 63 bits")
    return number


def text_of(data: bytes) -> str:
    """Bytes in the same alphabet, most significant first, without a sign or padding."""
    number = int.from_bytes(data, "big")
    width = -(-len(data) * 8 // 5)
    return "".join(_ALPHABET[number >> 5 * place & 31] for place in reversed(range(width)))


def parse(prefix: str, text: str) -> int:
    """The number of a prefixed id. Raises NotFound, since no such thing can exist."""
    try:
        if not text.startswith(prefix):
            raise ValueError(f"an id of this kind starts with {prefix}")
        return decode(text[len(prefix) :])
    except ValueError as cause:
        raise NotFound(f"There is nothing with the id {text[:60]!r}.", hint=str(cause)) from cause


_CANONICAL: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_UUID: Final = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.ASCII)


def canonical_task(text: str) -> str:
    """A task's UUID in its one spelling: lower case, with dashes. Raises ValueError."""
    if _CANONICAL.fullmatch(text):  # nearly always
        return text
    lowered = text.lower()
    if not _UUID.fullmatch(lowered):
        raise ValueError("a task's id is a UUID")
    return task_text(bytes.fromhex(lowered.replace("-", "")))


def task_bytes(task_id: str) -> bytes:
    """The 16 bytes of a canonical task id. Raises ValueError."""
    if len(task_id) != 36:
        raise ValueError("a task's id is a UUID")
    return bytes.fromhex(task_id.replace("-", ""))


def task_text(stored: bytes) -> str:
    """A task's UUID as platforms write it; ten times faster than uuid.UUID."""
    text = stored.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def delivery_id(event: int, endpoint: int) -> str:
    """A delivery is event × endpoint, so its id is both: unique for ever, sorted by event."""
    return DELIVERY + encode(event) + encode(endpoint)


def parse_delivery(text: str) -> tuple[int, int]:
    """(event, endpoint) of a delivery's id. Raises NotFound."""
    body = text.removeprefix(DELIVERY)
    try:
        if len(body) == len(text):
            raise ValueError(f"an id of this kind starts with {DELIVERY}")
        return decode(body[:WIDTH]), decode(body[WIDTH:])
    except ValueError as cause:
        hint = f"it is {DELIVERY} and the {WIDTH} characters of its event's id and its endpoint's"
        raise NotFound(f"There is no delivery {text[:60]!r}.", hint=hint) from cause


def attempt_id(event: int, endpoint: int, number: int) -> str:
    """An attempt is a delivery's n-th try; replays never reuse a number."""
    return f"{ATTEMPT}{encode(event)}{encode(endpoint)}{encode(number)[-3:]}"
