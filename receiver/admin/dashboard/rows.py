"""Floor 4, doors: the rows of the long lists, each written at once. Markupsafe only.

A list is mostly its rows, and a row in a template is some twenty expressions, each with a call or
two to escape and to join. Here a row is one text: what is not a number, a constant of ours or a
mark went through `e`, as in marks.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from html import escape as e
from typing import Any, Final

from markupsafe import Markup

from receiver.admin.dashboard.marks import (
    NONE,
    badge,
    cause,
    due,
    ident,
    kind,
    progress,
    since,
    tags,
    when,
)
from receiver.admin.dashboard.marks import took as lasted
from receiver.admin.dashboard.wording import dollars, host, size, words
from receiver.callbacks import Callback
from receiver.deliveries import Delivery, State
from receiver.events import Event
from receiver.tasks import Task


def task_row(task: Task, now: datetime) -> Markup:
    """A task, as it fills up."""
    late = f" {badge('overdue')}" if task.overdue and not task.complete else ""
    platform = e(task.platform)
    return Markup(  # noqa: S704
        f"<tr>\n<td>{ident(task.id, f'/tasks/{task.id}')}</td>\n"
        f"<td>{badge(task.status.value)}{late}</td>\n"
        f"<td>{progress(task)}</td>\n"
        f'<td title="{platform}">{e(task.model) if task.model else platform}</td>\n'
        f'<td class="fill">{tags(task.tags)}</td>\n'
        f'<td class="number">{dollars(task.cost)}</td>\n'
        f'<td class="number">{lasted(task, now)}</td>\n'
        f'<td class="number">{since(task.created_at, now)}</td>\n</tr>\n'
    )


def delivery_row(
    delivery: Delivery,
    now: datetime,
    hosts: Mapping[str, str],
    with_event: bool = True,
    with_endpoint: bool = True,
) -> Markup:
    """A delivery; an endpoint in `hosts` goes by its URL there."""
    href = f"/deliveries/{delivery.id}"
    event = f'<td><a href="{e(href)}">{kind(delivery.event_type)}</a></td>\n'
    endpoint = f"<td>{destination(delivery, hosts)}</td>\n"
    is_next = delivery.state is State.PENDING and delivery.next_attempt_at is not None
    return Markup(  # noqa: S704
        f"<tr>\n{event if with_event else ''}"
        f"<td>{badge(delivery.state.value)}</td>\n"
        f"<td>{_cause(delivery)}</td>\n"
        f"{endpoint if with_endpoint else ''}"
        f'<td class="number">{delivery.attempts}</td>\n'
        f"<td>{due(delivery.next_attempt_at, now) if is_next else NONE}</td>\n"
        f"<td>{when(delivery.created_at)}</td>\n"
        f'<td class="clip">{ident(delivery.id, href)}</td>\n</tr>\n'
    )


def destination(delivery: Delivery, hosts: Mapping[str, str]) -> Markup:
    """Where a delivery goes; an endpoint that was deleted has no page to be led to."""
    name = delivery.endpoint_id
    if delivery.endpoint_deleted:
        return Markup(f'{ident(name)} <span class="muted">was deleted</span>')  # noqa: S704
    href = f"/endpoints/{name}"
    if name not in hosts:
        return ident(name, href)
    return Markup(f'<a href="{e(href)}">{e(host(hosts[name]))}</a>')  # noqa: S704


def _cause(delivery: Delivery) -> str:
    if delivery.last_error:
        return e(cause(delivery.last_error, delivery.last_status))
    if delivery.last_status:
        return f'<span class="muted">{delivery.last_status}</span>'
    return NONE


def callback_row(callback: Callback) -> Markup:
    """An inbound request."""
    why = f'<span class="beside">{e(words(callback.reason))}</span>' if callback.reason else ""
    task = '<span class="none">none named</span>'
    if callback.task_id:
        task = ident(callback.task_id, f"/tasks/{callback.task_id}")
    origin = f"{callback.source}, {callback.remote}"
    return Markup(  # noqa: S704
        f"<tr>\n<td>{ident(callback.id, f'/callbacks/{callback.id}')}</td>\n"
        f"<td>{badge(callback.outcome.value)}{why}</td>\n"
        f"<td>{task}</td>\n"
        f'<td>{e(callback.platform)}<span class="beside">{e(origin)}</span></td>\n'
        f'<td class="number">{size(callback.size)}</td>\n'
        f'<td class="number">{callback.repeats + 1}</td>\n'
        f"<td>{when(callback.received_at)}</td>\n</tr>\n"
    )


def event_row(event: Event) -> Markup:
    """What endpoints were told of."""
    task = ident(event.task_id, f"/tasks/{event.task_id}")
    return Markup(  # noqa: S704
        f"<tr>\n<td>{ident(event.id, f'/events/{event.id}')}</td>\n"
        f"<td>{kind(event.type)}</td>\n"
        f"<td>{task}</td>\n"
        f"<td>{e(event.project)}</td>\n"
        f'<td class="number">{event.seq}</td>\n'
        f"<td>{when(event.created_at)}</td>\n</tr>\n"
    )


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    function.__name__: function
    for function in (task_row, delivery_row, destination, callback_row, event_row)
}
