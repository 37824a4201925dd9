"""Floor 0, nouns: reading untrusted JSON strictly, and taking typed values out of it. Pure.

The stdlib's decoder with hooks: it alone can show duplicate keys, NaN and 1e999
(security.md §4.2 has the table of what the fast decoders accept).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from pydantic_core import PydanticSerializationError, to_json

from receiver.errors import Unreadable

MAX_DEPTH: Final = 64
# Brackets and commas, in strings too: a task's results have some thousands at most, and an event
# loop that builds a list of 300,000 lists answers nobody else for a quarter of a second.
MAX_PARTS: Final = 50_000
MAX_TEXT: Final = 2_000
_BOUND: Final = 1 << 62


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unreadable("duplicate_keys")
    return found


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise Unreadable("number_out_of_range")
    return number


def _constant(text: str) -> NoReturn:
    raise Unreadable("not_a_number", f"{text} is not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_constant=_constant
)
# A string that never ends is one up to the end of the text; nothing is looked at twice.
_STRINGS_AND_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[{\]}]', re.DOTALL)
_ENCODE: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def loads(body: bytes) -> Any:
    """The JSON value of a body. Raises Unreadable with a stable reason, and nothing else."""
    try:
        text = body.decode().removeprefix("\ufeff")  # the codec that skips it is Python's own
    except UnicodeDecodeError:
        raise Unreadable("not_utf8") from None
    opened = text.count("[") + text.count("{")
    if opened + text.count(",") > MAX_PARTS:
        raise Unreadable("too_many_parts")
    if opened > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise Unreadable("too_deep")
    try:
        return _DECODER.decode(text)
    except ValueError as cause:
        reason = "bad_json" if isinstance(cause, json.JSONDecodeError) else "number_out_of_range"
        raise Unreadable(reason if text.strip() else "empty") from None


def _depth(text: str) -> int:
    # Only bodies with very many brackets reach this, and it decides before the decoder can recurse.
    depth = deepest = 0
    for found in _STRINGS_AND_BRACKETS.finditer(text):
        mark = found[0]
        if mark in ("[", "{"):
            depth += 1
            deepest = max(deepest, depth)
            if deepest > MAX_DEPTH:
                break
        elif mark in ("]", "}"):
            depth -= 1
    return deepest


def dumps(value: Any) -> str:
    """Compact JSON text that every store takes: lone surrogates and NUL stay escaped."""
    try:
        return to_json(value, inf_nan_mode="null").decode()
    except PydanticSerializationError:  # lone surrogates; the stdlib is slower and escapes them
        return _ENCODE(value)


def indented(value: Any) -> str:
    """JSON text for people to read; lone surrogates stay escaped. Raises RecursionError."""
    try:
        return to_json(value, indent=2, inf_nan_mode="constants").decode()
    except PydanticSerializationError:  # those, or too deep for it
        return json.dumps(value, indent=2)


def text_of(value: object, limit: int = MAX_TEXT) -> str | None:
    """A string fit for a text column: no lone surrogates, no NUL, at most `limit` characters."""
    if not isinstance(value, str):
        return None
    cut = value[:limit]
    if cut.isascii() and "\x00" not in cut:
        return cut
    return cut.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd")


def integer_of(value: object) -> int | None:
    """An integer that is not a boolean; whole floats count, since some platforms send them."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else None


def boolean_of(value: object) -> bool | None:
    """True, False or None."""
    return value if isinstance(value, bool) else None


def micros_of(value: object) -> int | None:
    """Dollars as micro-dollars; None for what is not a sensible amount."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value < _BOUND // 1_000_000:
        return None
    return round(value * 1_000_000)


def dollars(micros: int | None) -> float | None:
    """Micro-dollars as dollars."""
    return None if micros is None else micros / 1_000_000


def mapping_of(value: object) -> Mapping[str, Any] | None:
    """A JSON object, or None."""
    return value if isinstance(value, dict) else None
