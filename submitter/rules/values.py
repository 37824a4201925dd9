"""JSON values of unknown make: compared and shown without ever failing (floor 1, pure)."""

import difflib
import re
from collections.abc import Iterable
from typing import Any, assert_never

from submitter.rules.kinds import Absent, Form, JsonKind

SHOWN_CHARACTERS = 60

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_DATA = re.compile(r"data:([\w.+-]+/[\w.+-]+)(;[\w=.+-]+)*;base64,", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_LOOKED_AT = 200  # characters of a media input; the rest may be many megabytes
_URL = re.compile(r"https?://[^\s/?#]+\S*", re.IGNORECASE)


def same(one: Any, other: Any) -> bool:
    """Equality as JSON has it: 5 is 5.0, but true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def within(value: Any, values: Iterable[Any]) -> bool:
    return any(same(value, each) for each in values)


def dig(root: Any, path: str) -> Any:
    """The value at a dotted path, or ABSENT."""
    value = root
    for name in path.split(".") if path else ():
        if not isinstance(value, dict) or name not in value:
            return Absent.ABSENT
        value = value[name]
    return value


def is_whole(value: Any) -> bool:
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


def is_kind(value: Any, kind: JsonKind) -> bool:
    match kind:
        case "text":
            return isinstance(value, str)
        case "integer":
            return is_whole(value)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "object":
            return isinstance(value, dict)
        case "list":  # a tuple is sent as one
            return isinstance(value, list | tuple)
        case "uuid":
            return isinstance(value, str) and _UUID.fullmatch(value) is not None
        case "url":
            return isinstance(value, str) and _URL.fullmatch(value) is not None
        case _:
            assert_never(kind)


def is_pair(pair: tuple[Any, Any], pairs: Iterable[tuple[int, int]]) -> bool:
    return any(same(pair[0], first) and same(pair[1], second) for first, second in pairs)


def matches(pattern: str, value: Any) -> bool:
    """Whether a text is matched as a whole; false for all that is no text."""
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def product(factors: Iterable[Any]) -> int | float | None:
    """The product of numbers; None where one is none, or where it is beyond all measure."""
    result: int | float = 1
    for factor in factors:
        if not is_kind(factor, "number"):
            return None
        try:
            result *= factor
        except OverflowError:
            return None
    return result


def form_of(text: str) -> Form | None:
    """How a media input is written, by its beginning."""
    head = text[:_LOOKED_AT]
    if is_kind(text, "uuid"):
        return "uuid"
    if is_kind(text, "url"):
        return "url"
    if _DATA.match(head):
        return "data"
    return "base64" if _BASE64.fullmatch(head) else None


def media_type(text: str) -> str:
    """The media type of a data URI, or nothing."""
    found = _DATA.match(text[:_LOOKED_AT])
    return found[1] if found else ""


def bytes_of(text: str) -> int:
    """About how many bytes a data URI or base64 text stands for."""
    return (len(text) - text.find(",", 0, _LOOKED_AT) - 1) * 3 // 4


def printable(text: str) -> str:
    """The start of a text, fit for any terminal."""
    start = text[:SHOWN_CHARACTERS]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in start)
    return shown if start == text else f"{shown}…"


def show(value: Any) -> str:
    """A value in a sentence. Containers are only named: theirs may be any size and depth."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return f'"{printable(value)}"'
        case dict():
            return "an object"
        case list() | tuple():
            return "a list"
        case int() if value.bit_length() > 64:
            return "a very large number"
        case _:
            return printable(str(value))


def either(values: Iterable[Any]) -> str:
    """Values as an enumeration: 5, 8 or 10."""
    *first, last = (v if isinstance(v, str) else show(v) for v in values)
    return f"{', '.join(first)} or {last}" if first else last


def guess(value: Any, values: Iterable[Any]) -> str:
    """A question that names the nearest of the texts, or nothing."""
    if not isinstance(value, str) or len(value) > SHOWN_CHARACTERS:
        return ""
    folded = {v.lower(): v for v in values if isinstance(v, str)}
    near = difflib.get_close_matches(value.lower(), folded, 1)
    return f" Did you mean {folded[near[0]]}?" if near else ""
