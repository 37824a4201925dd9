"""Floor 5, assembly: what every command shares: settings, client, output and exit codes.

Human text goes to stderr, data to stdout, `--json` gives one JSON document a line. Exit codes:
0 ok, 1 failure, 2 usage, 3 could not start or reach the receiver, 4 auth, 5 not found, 6 timed out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from receiver.shown import inert

if TYPE_CHECKING:
    from pydantic import BaseModel

    from receiver.client import Client
    from receiver.settings import Settings

M = TypeVar("M", bound="BaseModel")

OK, FAILED, USAGE, UNREACHABLE, AUTH, NOT_FOUND, TIMED_OUT, SOME_FAILED = range(8)

Json = Annotated[bool, typer.Option("--json", help="One JSON document a line on stdout.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=200, help="How many at most.")]


def say(text: str) -> None:
    """Tell a person."""
    typer.echo(text, err=True)


def fail(text: str, code: int) -> NoReturn:
    """Tell a person why it ends here, and end."""
    say(text)
    raise typer.Exit(code)


def settings_of() -> Settings:
    """The environment's settings, or exit 3 with what to change."""
    from receiver.errors import SettingsRefused
    from receiver.settings import Settings

    try:
        return Settings.read(os.environ)
    except SettingsRefused as error:
        fail(str(error), UNREACHABLE)


def with_client(use: Callable[[Client], Coroutine[Any, Any, None]]) -> None:
    """Run `use` with a client of the user's receiver; refusals become exit codes."""
    import asyncio

    from receiver.client import ApiRefused, Client, Unreachable
    from receiver.settings import read_local

    settings = settings_of()
    local = read_local(settings.data_dir)
    url = settings.url or local.get("url") or f"http://127.0.0.1:{settings.port}"
    token = settings.admin_token or local.get("admin_token", "")

    async def run() -> None:
        async with Client(url, token) as client:
            await use(client)

    try:
        asyncio.run(run())
    except Unreachable as error:
        fail(str(error), UNREACHABLE)
    except ApiRefused as error:
        fail(str(error), {401: AUTH, 403: AUTH, 404: NOT_FOUND}.get(error.status, FAILED))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def spec_of(kind: type[M], **values: Any) -> M:
    """What the API will be asked, or exit 2 with what is wrong with it."""
    from pydantic import ValidationError

    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        fail(f"{place}: {first['msg']}.", USAGE)


def moment_of(text: str | None) -> str | None:
    """A time as the API takes it, out of one, or out of how long ago it was (`90s 30m 2h 7d`)."""
    import re
    from datetime import UTC, datetime, timedelta

    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text or "")
    if found is None:
        return text
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[found[2]]
    try:
        return (datetime.now(UTC) - timedelta(**{unit: int(found[1])})).isoformat()
    except OverflowError:
        fail(f"{text} ago is before all records.", USAGE)


def show(found: BaseModel, as_json: bool, columns: Sequence[str] = ()) -> None:
    """One object: a JSON line, or its fields one below the other."""
    if as_json:
        typer.echo(found.model_dump_json(exclude_none=True))
        return
    for name, value in found.model_dump(mode="json", exclude_none=True).items():
        if not columns or name in columns:
            typer.echo(f"{name:<18} {inert(value if isinstance(value, str) else _compact(value))}")


def _compact(value: object) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, default=str)


def table(rows: Sequence[BaseModel], as_json: bool, columns: Sequence[str], empty: str) -> None:
    """A list: JSON lines, or a table that fits the terminal; `empty` names what would fill it."""
    if as_json:
        for row in rows:
            typer.echo(row.model_dump_json(exclude_none=True))
        return
    if not rows:
        say(empty)
        return
    from rich.console import Console
    from rich.table import Table

    grid = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        grid.add_row(*[_cell(attrgetter(name)(row)) for name in columns])
    width = None if sys.stdout.isatty() else 200
    Console(width=width, highlight=False).print(grid)


def _cell(value: object) -> str:
    from datetime import datetime

    from rich.markup import escape

    if value is None:
        return "-"
    if isinstance(value, datetime):
        return f"{value.astimezone():%m-%d %H:%M:%S}"
    return escape(inert(", ".join(value) if isinstance(value, list) else str(value)))


def pairs_of(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if wrong := next((text for text, pair in zip(texts, pairs, strict=True) if not pair[1]), None):
        fail(f"Write a tag as key=value, not {wrong!r}.", USAGE)
    return {name: value for name, _, value in pairs}
