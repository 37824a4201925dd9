"""Floor 5, assembly: `trigger`: an event on demand, through the simulator's wire format."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from submitter.cli.output import USAGE, Json, exit_codes, fail, tags_of

if TYPE_CHECKING:
    from submitter.trigger import News, Trigger


def trigger(
    event_type: Annotated[str, typer.Argument(help="Such as result.succeeded.")],
    results: Annotated[
        int, typer.Option("--results", "-n", min=1, max=20, help="How many the task owes.")
    ] = 1,
    duplicate: Annotated[
        bool, typer.Option("--duplicate", help="Send every callback twice.")
    ] = False,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="In any order.")] = False,
    delay: Annotated[
        str, typer.Option("--delay", help="Between two callbacks: 2s, 500ms, or seconds.")
    ] = "0",
    status: Annotated[
        list[str] | None,
        typer.Option("--status", help="What a consumer of ours answers, try by try: 503,204."),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--override", help="name=value in the platform's item; dots nest."),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="key=value, in the URL.")] = None,
    project: Annotated[str | None, typer.Option("--project", help="Whose task it is.")] = None,
    as_json: Json = False,
) -> None:
    """Make an event happen, as a platform would: a task of its own is called back.

    With --status the receiver delivers to a consumer that answers so, which shows how it tries
    again: it has to be on this machine, with REELHOOK_ALLOW_NETWORKS=127.0.0.0/8. No platform is
    asked, and no key of one is read.

    reelhook trigger result.succeeded
    reelhook trigger result.succeeded -n 3 --duplicate --shuffle --delay 2s
    reelhook trigger result.failed --override code=contentPolicy
    reelhook trigger result.succeeded --status 503,503,204
    reelhook trigger task.overdue
    """
    from submitter.trigger import Trigger

    _check_type(event_type)
    asked = Trigger(
        event_type=event_type,
        results=results,
        duplicate=duplicate,
        shuffle=shuffle,
        delay_s=_seconds(delay),
        overrides=_overrides(override or []),
        tags=tags_of(tag),
        project=project,
        answers=_answers(status or []),
    )
    _run(asked, as_json)


def _check_type(event_type: str) -> None:
    from submitter.trigger import OTHERWISE, TYPES

    if event_type in OTHERWISE:
        fail(f"No callback makes that. What does: {OTHERWISE[event_type]}", USAGE)
    if event_type not in TYPES:
        fail(f"There is no {event_type!r} to trigger; there are {', '.join(TYPES)}.", USAGE)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,5}(?:\.\d{1,3})?)(ms|s|m)?", text, re.ASCII)
    if found is None:
        fail(f"Write --delay as 2s, 500ms or seconds, not {text!r}.", USAGE)
    return float(found[1]) * {"ms": 0.001, "s": 1, "m": 60}.get(found[2], 1)


def _answers(texts: Sequence[str]) -> tuple[int, ...]:
    words = [word for text in texts for word in text.split(",")]
    if wrong := next((word for word in words if not re.fullmatch("[2-5][0-9][0-9]", word)), None):
        fail(f"Write --status as HTTP statuses, such as 503,204, not {wrong!r}.", USAGE)
    return tuple(map(int, words))


def _overrides(texts: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            fail(f"Write --override as name=value, not {text!r}.", USAGE)
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError):
            found[name] = value
    return found


def _run(asked: Trigger, as_json: bool) -> None:
    import asyncio
    from random import Random

    from receiver.client import Client
    from submitter.environment import read
    from submitter.trigger import pull

    environment = read(os.environ)
    tell = _as_json if as_json else _as_line

    async def run() -> str:
        async with Client(environment.ledger_url, environment.ledger_token) as ledger:
            return await pull(asked, ledger, tell, Random())  # noqa: S311 - it shuffles

    with exit_codes():
        task_id = asyncio.run(run())
    if not as_json:
        typer.echo(f"See what became of it: reelhook tasks show {task_id}", err=True)


def _as_line(news: News) -> None:
    from datetime import UTC, datetime

    from receiver.client import Event
    from submitter.trigger import Called, Tried

    if isinstance(news, Called):
        said = f" <--  callback {news.number} of {news.total} [{news.status}]"
    elif isinstance(news, Tried):
        said = f"  ==> attempt {news.number}: {news.status or 'no answer'}, {news.state}"
        said += f" [{news.delivery}]"
    else:
        said = f"  --> {news.type} [{news.id}]"
    # Events are read back after the last callback: each has the time at which it was told.
    at = news.created_at if isinstance(news, Event) else datetime.now(UTC)
    typer.echo(f"{at.astimezone():%Y-%m-%d %H:%M:%S} {said}")


def _as_json(news: News) -> None:
    from dataclasses import asdict

    from submitter.trigger import Called, Tried

    if isinstance(news, Called):
        told = {"event": "callback", **asdict(news)}
    elif isinstance(news, Tried):
        told = {"event": "attempt", **asdict(news)}
    else:
        told = {"event": "event", "id": news.id, "type": news.type, "task": news.task_id}
    typer.echo(json.dumps(told))
