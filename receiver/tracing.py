"""Floor 0, nouns: W3C Trace Context (www.w3.org/TR/trace-context): whose trace a task is of. Pure.

A task keeps the `traceparent` that it was registered with; each attempt to deliver something of it
is a span of its own in that trace. `tracestate` is not kept: it belongs to the vendors of whoever
submitted, may hold what is theirs alone, and would go to strangers' endpoints days later. The
recommendation allows to drop it, and `traceparent` is whole without it.
"""

from __future__ import annotations

import re
from typing import Final

HEADER: Final = "traceparent"
HEADERS: Final = frozenset({HEADER, "tracestate"})  # no endpoint sets these itself
SPAN_BYTES: Final = 8
LONGEST: Final = 200  # characters of one that a later version made; ours have 55

SHAPE: Final = "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"  # for those who write one

_KNOWN: Final = 0x03  # sampled, random; of the others nothing may be said
# Version ff is none, and an id of zeros alone is no id. A later version may have more to say
# behind its flags, which we can't know: what we pass on is of version 00.
_FORM: Final = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<span>(?!0{16})[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?",
    re.ASCII,
)


def parse(text: str) -> str:
    """A `traceparent` as it is kept and passed on. Raises ValueError for one that is none."""
    found = _FORM.fullmatch(text) if len(text) <= LONGEST else None
    if found is None or (found["more"] and found["version"] == "00"):
        raise ValueError("a traceparent is 00-{32 hex digits}-{16}-{2} (W3C Trace Context)")
    flags = int(found["flags"], 16) & _KNOWN
    return f"00-{found['trace']}-{found['span']}-{flags:02x}"


def given(text: str | None) -> str | None:
    """That of a header, which a client or proxy sends by itself: one that is none is ignored."""
    try:
        return None if text is None else parse(text.strip())
    except ValueError:
        return None


def child(traceparent: str, span: bytes) -> str:
    """The same trace and flags, with a span of one's own; `span` are 8 random bytes."""
    version, trace, _, flags = traceparent.split("-")
    # Zeros alone are no id, however seldom they come.
    return f"{version}-{trace}-{(span if any(span) else bytes(7) + b'1').hex()}-{flags}"


def trace_of(traceparent: str) -> str:
    """The id of the trace, 32 hexadecimal digits."""
    return traceparent.split("-")[1]


def span_of(traceparent: str) -> str:
    """The id of the span, 16 hexadecimal digits."""
    return traceparent.split("-")[2]
