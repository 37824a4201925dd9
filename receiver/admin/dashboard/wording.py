"""Floor 4, doors: how pages write times, amounts, sizes and states. Stdlib only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from receiver.figures import Figure, HealthHour
from receiver.platforms.reading import indented
from receiver.shown import redact

# What a state looks like: its tone and its icon, which says it to whoever sees no colour.
STATES: Final[Mapping[str, tuple[str, str]]] = {
    # tasks
    "pending": ("wait", "clock"),
    "partial": ("busy", "half"),
    "succeeded": ("good", "check"),
    "partially_failed": ("warn", "alert"),
    "failed": ("bad", "cross"),
    "overdue": ("warn", "clock"),
    # submits
    "registered": ("calm", "dot"),
    "submitted": ("good", "check"),
    "rejected": ("bad", "cross"),
    "unknown": ("warn", "question"),
    # callbacks
    "recorded": ("good", "check"),
    "conflict": ("warn", "alert"),
    "duplicate": ("calm", "copy"),
    "progress": ("busy", "half"),
    "quarantined": ("bad", "shield"),
    "expired": ("warn", "clock"),
    "revoked": ("bad", "ban"),
    "limited": ("warn", "ban"),
    # deliveries
    "sending": ("busy", "send"),
    "dead": ("bad", "skull"),
    "canceled": ("calm", "ban"),
    # endpoints
    "enabled": ("good", "check"),
    "paused": ("warn", "pause"),
    "disabled": ("bad", "ban"),
    "closed": ("good", "check"),
    "half_open": ("busy", "half"),
    "open": ("bad", "bolt"),
    # jobs
    "queued": ("wait", "clock"),
    "running": ("busy", "half"),
    "done": ("good", "check"),
    # conditions
    "ok": ("good", "check"),
    "warning": ("warn", "alert"),
    "failing": ("bad", "cross"),
    "set": ("good", "check"),
    "not_set": ("calm", "dot"),
}
MOST: Final = 16_000  # characters of a text that a page shows
LONG: Final = 2_000  # of one text within JSON
SHORT: Final = 200  # that are left of a longer one
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def tone(state: str) -> str:
    """A state's tone: good, bad, warn, busy, wait or calm."""
    return STATES.get(state, ("calm", "dot"))[0]


def icon(state: str) -> str:
    """A state's icon."""
    return STATES.get(state, ("calm", "dot"))[1]


def words(state: str) -> str:
    """A state as people write it."""
    return state.replace("_", " ")


def utc(moment: datetime) -> str:
    """`2026-11-28 04:39:12`, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def iso(moment: datetime) -> str:
    """RFC 3339, for programs."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def span(seconds: float) -> str:
    """The two largest parts of a time: `2d 4h`, `3m 12s`, `820ms`."""
    if seconds < 1:
        return f"{max(round(seconds * 1000), 0)}ms"
    rest, parts = round(seconds), []
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def ago(moment: datetime, now: datetime) -> str:
    """How long ago, or how soon, in its largest part."""
    seconds = (now - moment).total_seconds()
    if abs(seconds) < 1:
        return "now"
    text = span(abs(seconds)).partition(" ")[0]
    return f"{text} ago" if seconds > 0 else f"in {text}"


def dollars(amount: float | None) -> str:
    """`$0.4715`; a dash where a platform reported none."""
    if amount is None:
        return "–"
    return f"${amount:,.2f}" if amount == round(amount, 2) else f"${amount:,.4f}"


def size(count: int) -> str:
    """Bytes: `512 B`, `1.4 kB`, `3.2 MB`."""
    if count < 1_000:
        return f"{count} B"
    amount = count / 1_000
    for unit in ("kB", "MB", "GB"):
        if amount < 999.5 or unit == "GB":
            break
        amount /= 1_000
    return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:,.0f} {unit}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """`1 task`, `2,400 tasks`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def amount(figure: Figure) -> str:
    """`2,400`; `10,000+` where counting stopped there."""
    return f"{figure.count:,}" if figure.complete else f"{figure.count:,}+"


def percent(share: float | None) -> str:
    """`98.2 %`, and 100 % only if it is all; a dash of nothing."""
    if share is None:
        return "–"
    shown = min(round(share * 100, 1), 99.9) if share < 1 else 100
    return f"{shown:g} %"


def short(text: str) -> str:
    """The beginning of a UUID, a digest or a request's id; ids of ours stay whole."""
    return text[:8] if len(text) in (32, 36, 64) else text


def link(url: str | None) -> str | None:
    """A URL that a page may lead to: http or https, and nothing that runs."""
    if url is None or not url.isprintable():
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return url if parts.scheme in ("http", "https") and parts.netloc else None


def pretty(found: Any) -> str:
    """JSON for reading, without a credential of ours; a text that is no JSON as it is.

    Long texts within it, such as images, are cut: nobody reads them, and pages stay small.
    """
    try:
        if isinstance(found, str):
            found = json.loads(found)
        text = indented(_shortened(found))
    except (ValueError, RecursionError):  # no JSON, or deeper than anybody could read it
        text = str(found) if isinstance(found, str) else json.dumps(found, default=str)
    return cut(redact(text))


def _shortened(found: Any) -> Any:
    if isinstance(found, str):
        return found if len(found) <= LONG else f"{found[:SHORT]}… ({len(found):,} characters)"
    if isinstance(found, Mapping):
        return {name: _shortened(value) for name, value in found.items()}
    if isinstance(found, list):
        return [_shortened(value) for value in found]
    return found


def cut(text: str) -> str:
    """The beginning of a long text."""
    left = len(text) - MOST
    return text if left <= 0 else f"{text[:MOST]}\n… and {left:,} more characters"


def host(url: str) -> str:
    """The part of a URL that tells endpoints apart, without a user or a query: `example.com/hooks`.

    Paths hold credentials too (many chats' are nothing else), so a long one is cut.
    """
    parts = urlsplit(url)
    where = parts.netloc.rpartition("@")[2]
    path = parts.path if parts.path != "/" else ""
    return where + (path if len(path) <= 24 else f"{path[:23]}…")


def query(given: Mapping[str, Any]) -> str:
    """Filters as the query of a URL; those that are not set stay out."""
    return urlencode({name: value for name, value in given.items() if value not in (None, "")})


def minute(moment: datetime | None) -> str:
    """What a field for a time in UTC has in it."""
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M}"


def busiest(hours: Sequence[HealthHour]) -> int:
    """The attempts of the hour that had most."""
    return max((hour.succeeded + hour.failed for hour in hours), default=0)


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    function.__name__: function
    for function in (
        tone,
        words,
        utc,
        iso,
        span,
        ago,
        dollars,
        size,
        counted,
        amount,
        percent,
        short,
        link,
        pretty,
        host,
        query,
        minute,
        busiest,
    )
}
