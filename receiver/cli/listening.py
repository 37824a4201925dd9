"""Floor 5, assembly: `reelhook listen`: a deployed receiver's events on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from receiver.cli.options import Json, OfProject
from receiver.cli.output import FAILED, USAGE, fail, pairs_of, say, settings_of, with_client
from receiver.shown import inert

if TYPE_CHECKING:
    from collections.abc import Sequence

    from receiver.client import Client
    from receiver.listen import Found, Lost, News, Targets


def listen(
    forward_to: Annotated[
        str | None,
        typer.Option("--forward-to", "-f", help="Where events are POSTed: a URL, or a port."),
    ] = None,
    event: Annotated[
        list[str] | None, typer.Option("-e", "--event", help="Event type; * at an end is any.")
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="TYPE=URL", help="Events of a type go here instead."),
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option("--filter", help="field=value, such as tags.team=a.")
    ] = None,
    project: OfProject = None,
    header: Annotated[
        list[str] | None, typer.Option("-H", "--header", help="'Name: value', sent along.")
    ] = None,
    after: Annotated[
        str | None, typer.Option("--after", help="Begin behind this seq or place; 0: with all.")
    ] = None,
    skip_verify: Annotated[
        bool, typer.Option("--skip-verify", help="Take any certificate of an https target.")
    ] = False,
    poll: Annotated[
        bool, typer.Option("--poll", help="Ask again and again; done where streams are held back.")
    ] = False,
    print_secret: Annotated[
        bool, typer.Option("--print-secret", help="Print the secret that events are signed with.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show events as they happen and POST them to this machine, those sent again too.

    They are signed with a secret of this machine that stays the same, kept in the data directory.

    reelhook listen --forward-to http://localhost:3000/hook
    reelhook listen --forward-to 3000 -e 'result.*' --map task.completed=localhost:3000/done
    reelhook listen --print-secret
    """
    import secrets

    from receiver.client import Asked
    from receiver.listen import BadSecret, BadTarget, development_secret

    try:
        secret = development_secret(settings_of().data_dir, secrets.token_bytes)
    except BadSecret as error:
        fail(str(error), FAILED)
    if print_secret:
        typer.echo(secret)
        return
    filters: dict[str, list[str]] = {}
    for text in where or []:
        for name, value in pairs_of([text]).items():
            filters.setdefault(name, []).append(value)
    try:
        targets = _targets(forward_to, to or [])
    except BadTarget as error:
        fail(str(error), USAGE)
    _run(
        verify=not skip_verify,
        secret=secret,
        targets=targets,
        asked=Asked(tuple(event or ()), filters, project),
        headers=_headers(header or []),
        after=after,
        polled=poll,
        tell=_as_json if as_json else _as_lines,
    )


def _targets(every: str | None, mapped: Sequence[str]) -> Targets:
    from receiver.listen import Targets, target_url

    pairs = [text.partition("=") for text in mapped]
    if any(not url for _, _, url in pairs):
        fail("Write --map as TYPE=URL, such as result.failed=http://localhost:3000/failed.", USAGE)
    return Targets(
        None if every is None else target_url(every),
        [(pattern, target_url(url)) for pattern, _, url in pairs],
    )


def _headers(texts: Sequence[str]) -> dict[str, str]:
    from receiver.endpoints import check_headers
    from receiver.errors import Invalid

    found = {name.strip(): value.strip() for name, _, value in (t.partition(":") for t in texts)}
    try:
        check_headers(found)
    except Invalid as error:
        fail(str(error), USAGE)
    return found


def _run(*, verify: bool, **given: Any) -> None:
    import httpx

    from receiver.clock import wall_clock
    from receiver.heard import NotTheFeed
    from receiver.listen import AT_ONCE, DEADLINE, Listener

    async def use(client: Client) -> None:
        limits = httpx.Limits(max_connections=AT_ONCE)
        # The listener has a deadline of its own, over all that httpx counts one by one.
        options: Any = {"timeout": DEADLINE, "limits": limits}
        async with httpx.AsyncClient(verify=verify, trust_env=False, **options) as http:
            await Listener(client, http, wall=wall_clock, **given).run()

    try:
        with_client(use)
    except NotTheFeed as error:
        fail(str(error), FAILED)


def _as_lines(news: News) -> None:
    from receiver.client import Heard
    from receiver.listen import Forwarded

    if isinstance(news, Heard):
        again = " (sent again)" if news.resent else ""
        _line(f"  --> {news.type} [{news.id}]{again}")
    elif isinstance(news, Forwarded):
        seen = "ERROR" if news.status is None else news.status
        why = f": {news.error}" if news.error else ""
        _line(f" <--  [{seen}] POST {news.url} [{news.heard.id}]{why}")
    else:
        say(inert(_said(news)))


def _line(text: str) -> None:
    from datetime import datetime

    typer.echo(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {inert(text)}")


def _said(news: Lost | Found) -> str:
    from receiver.listen import Found

    if not isinstance(news, Found):
        return f"{news.why} Trying again in {news.seconds:g} s."
    how = " by long polls, since streams are held back on the way" if news.polled else ""
    if news.again:
        return f"Back{how}, behind {news.place}."
    return (
        f"Ready! Events come here{how}, from behind {news.place} on. They are signed with what"
        " `reelhook listen --print-secret` shows. (^C to quit)"
    )


def _as_json(news: News) -> None:
    import json

    from receiver.client import Heard
    from receiver.listen import Forwarded, Found

    told: dict[str, Any]
    if isinstance(news, Heard):
        told = {name: getattr(news, name) for name in ("id", "type", "task_id", "resent")}
        told = {"event": "heard", **told, "payload": json.loads(news.body)}
    elif isinstance(news, Forwarded):
        told = {name: getattr(news, name) for name in ("url", "status", "error", "duration_ms")}
        told = {"event": "forwarded", "id": news.heard.id, **told}
    elif isinstance(news, Found):
        told = {"event": "ready", "cursor": news.place, "again": news.again, "polled": news.polled}
    else:
        told = {"event": "lost", "why": news.why, "again_in_s": news.seconds}
    typer.echo(json.dumps(told))
