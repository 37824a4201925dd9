"""Floor 5, assembly: what every command shares: settings, client, output and exit codes.

Human text goes to stderr, data to stdout, `--json` gives one JSON document a line. Exit codes:
0 ok, 1 failure, 2 usage, 3 could not start or reach the receiver, 4 auth, 5 not found, 6 timed out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import typer

from receiver.cli.help import heading
from receiver.cli.options import Json, Limit
from receiver.shown import inert

if TYPE_CHECKING:
    from pydantic import BaseModel

    from receiver.cli.table import Column
    from receiver.client import ApiRefused, Client, Listing
    from receiver.settings import Settings

# What most commands need stands in one place for them.
__all__ = [
    "AUTH",
    "FAILED",
    "NOT_FOUND",
    "OK",
    "SOME_FAILED",
    "TIMED_OUT",
    "UNREACHABLE",
    "USAGE",
    "Json",
    "Limit",
    "confirm",
    "done",
    "fail",
    "listing",
    "moment_of",
    "pairs_of",
    "patterns_of",
    "say",
    "settings_of",
    "show",
    "spec_of",
    "table",
    "with_client",
]

PAGE: Final = 200  # the most that the API gives at once
NAMES: Final = 18  # columns of the names of fields, unless one is longer

M = TypeVar("M", bound="BaseModel")

OK, FAILED, USAGE, UNREACHABLE, AUTH, NOT_FOUND, TIMED_OUT, SOME_FAILED = range(8)


def say(text: str) -> None:
    """Tell a person."""
    typer.echo(text, err=True)


def fail(text: str, code: int) -> NoReturn:
    """Tell a person why it ends here, and end."""
    say(text)
    raise typer.Exit(code)


def confirm(question: str) -> None:
    """Go on after a yes; anything else ends the command.

    Typer's own question writes a space to stdout, which holds data and may be a file.
    """
    typer.echo(f"{question} [y/N]: ", err=True, nl=False)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        fail("Nothing was done.", FAILED)


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
    from receiver.settings import address_of

    url, token = address_of(settings_of())

    async def run() -> None:
        async with Client(url, token) as client:
            await use(client)

    try:
        asyncio.run(run())
    except Unreachable as error:
        fail(str(error), UNREACHABLE)
    except ApiRefused as error:
        fail(str(error), _code_of(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _code_of(error: ApiRefused) -> int:
    match error.problem:
        case "not_reelhook":  # whose 404 says nothing of an id
            return UNREACHABLE
        case "invalid":
            return USAGE
        case _:
            return {401: AUTH, 403: AUTH, 404: NOT_FOUND}.get(error.status, FAILED)


def spec_of(kind: type[M], **values: Any) -> M:
    """What the API will be asked, or exit 2 with what is wrong with it."""
    from pydantic import ValidationError

    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        fail(f"{place}: {first['msg']}.", USAGE)


def moment_of(text: str | None, *, ahead: bool = False) -> str | None:
    """A time as the API takes it, out of one, or out of how long ago it was (`90s 30m 2h 7d`).

    `ahead`: how long it is until then.
    """
    import re
    from datetime import UTC, datetime, timedelta

    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text or "")
    if found is None:
        return text
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[found[2]]
    try:
        apart = timedelta(**{unit: int(found[1])})
        now = datetime.now(UTC)
        return (now + apart if ahead else now - apart).isoformat()
    except OverflowError:
        fail(f"{text} {'from now' if ahead else 'ago'} is beyond all records.", USAGE)


def show(found: BaseModel, as_json: bool, columns: Sequence[str] = ()) -> None:
    """One object: a JSON line, or its fields one below the other."""
    if as_json:
        typer.echo(found.model_dump_json(exclude_none=True))
        return
    fields = found.model_dump(mode="json", exclude_none=True)
    shown = {name: fields[name] for name in fields if not columns or name in columns}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        text = inert(value if isinstance(value, str) else _compact(value))
        typer.echo(f"{name:<{max(width, NAMES)}} {text}")


def done(text: str, as_json: bool, **facts: object) -> None:
    """What was done and leaves nothing to show: a sentence, or its facts as JSON."""
    if as_json:
        typer.echo(_compact(facts))
    else:
        say(text)


def _compact(value: object) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, default=str)


# A column by the name of its field, or by a name and what makes its cell of a row.
Shown = str | tuple[str, Callable[[Any], object]]


def table(rows: Sequence[BaseModel], as_json: bool, columns: Sequence[Shown], empty: str) -> None:
    """A list: JSON lines, or a table that fits the terminal; `empty` names what would fill it."""
    if as_json:
        for row in rows:
            typer.echo(row.model_dump_json(exclude_none=True))
        return
    if not rows:
        if empty:
            say(empty)
        return
    import shutil

    from receiver.cli.table import laid_out

    # Whatever reads a pipe has no width, and wants every column.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    named = [(one, attrgetter(one)) if isinstance(one, str) else one for one in columns]
    made = [_column(name, [cell(row) for row in rows]) for name, cell in named]
    (head, *lines), hidden = laid_out(made, width)
    typer.echo("\n".join([heading(head), *lines]))
    if hidden:
        say(f"No room for {', '.join(hidden)}: --json shows everything.")


async def listing(
    ask: Callable[..., Awaitable[Listing[Any]]],
    filters: Mapping[str, Any],
    limit: int,
    as_json: bool,
    columns: Sequence[Shown],
    empty: str,
) -> None:
    """A list of the API, page by page up to `limit`, as a table or JSON lines.

    `empty` names what would fill the list; where filters left nothing of it, that would mislead.
    """
    rows: list[BaseModel] = []
    cursor: str | None = ""
    while cursor is not None and len(rows) < limit:
        size = min(limit - len(rows), PAGE)
        page = await ask(**filters, limit=size, cursor=cursor or None)
        rows += page.data
        cursor = page.next_cursor
    narrowed = any(value is not None for value in filters.values())
    table(rows, as_json, columns, "Nothing matches these options." if narrowed else empty)
    if cursor is not None and not as_json:
        say(f"There are more than {limit:,}: raise --limit, or name fewer.")


def _column(name: str, values: Sequence[object]) -> Column:
    from receiver.cli.table import Column

    found = [value for value in values if value is not None]
    is_id = name.endswith("id") or name == "example"
    text = not is_id and any(type(value) in (str, list, dict) for value in found)
    number = bool(found) and all(type(value) in (int, float) for value in found)
    return Column(name, tuple(map(_cell, values)), text, number)


def _cell(value: object) -> str:
    from datetime import datetime

    if value is None:
        return "-"
    if isinstance(value, datetime):
        return f"{value.astimezone():%m-%d %H:%M:%S}"
    if isinstance(value, dict):
        return _cell([f"{name}={one}" for name, one in value.items()])
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return " ".join(inert(text).split())


def pairs_of(texts: Sequence[str], what: str = "a tag as key=value") -> dict[str, str]:
    """`key=value` arguments; any other ends the command."""
    return dict(_pairs(texts, what))


def patterns_of(texts: Sequence[str]) -> dict[str, str | list[str]]:
    """`field=value` arguments; a field that is named twice may have either value."""
    found: dict[str, list[str]] = {}
    for name, value in _pairs(texts, "a filter as field=value"):
        found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _pairs(texts: Sequence[str], what: str) -> Iterator[tuple[str, str]]:
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            fail(f"Write {what}, not {text!r}.", USAGE)
        yield name, value
