"""Floor 4, doors: what rows are made of: badges, times, ids, boxes, bars. Markupsafe only.

They are filters and not macros because a list has hundreds of them: a macro costs a call through
the template's runtime, and each value within it one more. A filter has to escape by itself what
autoescape would have: here a value is a constant of ours, a number, or it went through `escape`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from html import escape
from typing import Any, Final

from markupsafe import Markup

from receiver.admin.dashboard import wording
from receiver.endpoints import Endpoint
from receiver.figures import HealthHour
from receiver.repair import Job
from receiver.tasks import Task

NONE: Final = Markup('<span class="none">–</span>')
BOXES: Final = 12  # results that are drawn as a box each
BOX: Final = 8  # pixels of a box and the gap beside it
_STATES: Final = 256  # badges that are kept


@lru_cache(_STATES)
def icon(name: str) -> Markup:
    """A symbol of icons.html."""
    text = f'<svg class="icon" aria-hidden="true"><use href="#i-{escape(name)}"></use></svg>'
    return Markup(text)  # noqa: S704 - a constant and an escaped name


def sign(state: str) -> Markup:
    """The icon of a state."""
    return icon(wording.icon(state))


@lru_cache(_STATES)
def badge(state: str, label: object = None) -> Markup:
    """A state by its icon and its word; the colour only repeats them."""
    said = escape(str(label or wording.words(state)))
    text = f'<span class="badge {wording.tone(state)}">{sign(state)}{said}</span>'
    return Markup(text)  # noqa: S704


def when(moment: datetime | None) -> Markup:
    """A moment: in UTC, or in the browser's zone once the script has seen it."""
    if moment is None:
        return NONE
    text = _text(moment)
    iso = text[:23]
    return Markup(  # noqa: S704
        f'<time datetime="{iso}Z" title="{iso}Z" data-when>{text[:10]} {text[11:19]}</time>'
    )


def since(moment: datetime | None, now: datetime) -> Markup:
    """How long ago it was; the moment itself in its title."""
    if moment is None:
        return NONE
    text = _text(moment)
    return Markup(  # noqa: S704
        f'<time datetime="{text[:23]}Z" title="{text[:10]} {text[11:19]} UTC">'
        f"{wording.ago(moment, now)}</time>"
    )


def due(moment: datetime | None, now: datetime) -> Markup:
    """How soon it is tried next; or since when it could be, and waits for its endpoint."""
    found = since(moment, now)
    return found if moment is None or moment > now else Markup("due ") + found


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def ident(text: str | None, href: str | None = None, whole: bool = False) -> Markup:
    """An id, whole or short, as a link if it leads somewhere."""
    if text is None:
        return NONE
    title, shown = escape(text), escape(text if whole else wording.short(text))
    if href:
        link = f'<a class="id" href="{escape(href)}" title="{title}">{shown}</a>'
        return Markup(link)  # noqa: S704
    return Markup(f'<code class="id" title="{title}">{shown}</code>')  # noqa: S704


def copy(text: str, label: str = "Copy") -> Markup:
    """A button that copies a text; the script shows it."""
    said = escape(label)
    return Markup(  # noqa: S704
        f'<button type="button" class="copy" data-copy="{escape(text)}" aria-label="{said}"'
        f' title="{said}" hidden>{icon("copy")}</button>'
    )


def copyable(text: str, label: str = "Copy") -> Markup:
    """A text with a button that copies it."""
    shown = f'<span class="copyable"><code>{escape(text)}</code>{copy(text, label)}</span>'
    return Markup(shown)  # noqa: S704


def kind(event_type: str) -> Markup:
    """What downstream is told, by its type."""
    return Markup(f'<code class="kind">{escape(event_type)}</code>')  # noqa: S704


def cause(error: str, status: int | None = None) -> str:
    """Why an attempt failed."""
    return f"{wording.words(error)} {status}" if status else wording.words(error)


def tags(pairs: Mapping[str, str]) -> Markup:
    """A task's tags."""
    if not pairs:
        return NONE
    spans = [
        f'<span class="tag">{escape(str(name))}={escape(str(value))}</span>'
        for name, value in pairs.items()
    ]
    return Markup("".join(spans))  # noqa: S704


def progress(task: Task) -> Markup:
    """k of N as a row of small boxes: good, failed, owed."""
    expected = task.expected or task.received
    of = "?" if task.expected is None else task.expected
    boxes = _boxes(expected, task.succeeded, task.received) if expected <= BOXES else ""
    said = f'<span class="of"><b>{task.received}</b> of {of}</span>'
    return Markup(f'<span class="progress">{boxes}{said}</span>')  # noqa: S704


@lru_cache(_STATES)
def _boxes(expected: int, succeeded: int, received: int) -> str:
    rects = "".join(
        f'<rect class="{_box(index, succeeded, received)}" x="{BOX * index}" y="0" width="6"'
        ' height="12" rx="1.5"></rect>'
        for index in range(expected)
    )
    wide = BOX * max(expected, 1) - 2
    return f'<svg class="boxes" width="{wide}" height="12" aria-hidden="true">{rects}</svg>'


def _box(index: int, succeeded: int, received: int) -> str:
    if index < succeeded:
        return "good"
    return "bad" if index < received else "owed"


def took(task: Task, now: datetime) -> Markup:
    """How long a task took, or has taken so far."""
    if task.completed_at is None:
        so_far = wording.span((now - task.created_at).total_seconds())
        return Markup(f'<span class="running">{so_far} …</span>')  # noqa: S704
    return Markup(wording.span((task.completed_at - task.created_at).total_seconds()))  # noqa: S704


def fares(endpoint: Endpoint) -> Markup:
    """Where an endpoint stands; its breaker only when that says more."""
    stands, breaker = badge(endpoint.state.value), endpoint.health.breaker.value
    if endpoint.state.value != "enabled" or breaker == "closed":
        return stands
    return stands + " " + badge(breaker, f"breaker {wording.words(breaker)}")


def far(job: Job) -> Markup:
    """How far a job is."""
    bar = (
        f'<progress class="far" value="{min(job.done, job.total)}" max="{job.total}"'
        ' aria-label="How far it is"></progress> '
        if job.total
        else ""
    )
    of = "" if job.total is None else f" of {job.total:,}"
    return Markup(f'{bar}<span class="of"><b>{job.done:,}</b>{of}</span>')  # noqa: S704


def strip(hours: Sequence[HealthHour], tall: bool = False) -> Markup:
    """Attempts by hour: a bar each, what failed above what succeeded. The words say the same."""
    high, wide = (64, 18) if tall else (22, 5)
    good, bad = sum(hour.succeeded for hour in hours), sum(hour.failed for hour in hours)
    across = len(hours) * (wide + 1) - 1
    fixed = "" if tall else f'width="{across}" height="{high}" '
    bars = "".join(_bars(hours, high, wide))
    return Markup(  # noqa: S704
        f'<svg class="strip{" tall" if tall else ""}" viewBox="0 0 {across} {high}"'
        f' preserveAspectRatio="none" {fixed}role="img" aria-label="{good:,} attempts succeeded'
        f' and {bad:,} failed in the last {len(hours)} hours">{bars}</svg>'
    )


def _bars(hours: Sequence[HealthHour], high: int, wide: int) -> Iterator[str]:
    most = wording.busiest(hours)
    for index, hour in enumerate(hours):
        at = f'x="{index * (wide + 1)}"'
        yield (
            f"<g><title>{wording.utc(hour.at)} UTC: {hour.succeeded:,} succeeded,"
            f" {hour.failed:,} failed</title>"
            f'<rect class="ground" {at} y="0" width="{wide}" height="{high}" rx="1"></rect>'
        )
        if hour.succeeded + hour.failed:
            yield from _bar(hour, at, (high, wide), most)
        yield "</g>"


def _bar(hour: HealthHour, at: str, size: tuple[int, int], most: int) -> Iterator[str]:
    high, wide = size
    every = hour.succeeded + hour.failed
    tall = round(every / most * (high - 3), 1) + 3
    red = round(tall * hour.failed / every, 1)
    if tall > red:
        top, size_ = round(high - tall + red, 1), round(tall - red, 1)
        yield f'<rect class="good" {at} y="{top}" width="{wide}" height="{size_}" rx="1"></rect>'
    if red:
        top = round(high - tall, 1)
        yield f'<rect class="bad" {at} y="{top}" width="{wide}" height="{red}" rx="1"></rect>'


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    function.__name__: function
    for function in (
        icon,
        sign,
        badge,
        when,
        due,
        since,
        ident,
        copy,
        copyable,
        kind,
        cause,
        tags,
        progress,
        took,
        fares,
        far,
        strip,
    )
}
