"""Floor 5, assembly: what the submitter's commands share: words, codes, what is shown of a task.

Human text goes to stderr, data to stdout. Exit codes as receiver/cli has them: 0 ok, 1 failure,
2 usage, 3 no receiver, 4 auth, 5 not found, 6 timed out, 7 some results failed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from receiver.client import Result, Task
    from submitter.errors import Finding
    from submitter.handle import SubmittedTask

FAILED, USAGE, UNREACHABLE, AUTH, NOT_FOUND, TIMED_OUT, SOME_FAILED = range(1, 8)

# What a receiver that did answer means by a status; with any other it is none of ours.
_REFUSALS = {401: AUTH, 403: AUTH, 404: NOT_FOUND, 409: FAILED, 413: FAILED, 422: FAILED}

# As receiver/cli/help.py names the sections of `reelhook --help`.
RUN, SUBMIT, DELIVER = "Run it", "Submit", "Deliver"

Json = Annotated[bool, typer.Option("--json", help="One JSON document a line on stdout.")]
AlwaysJson = Annotated[
    bool, typer.Option("--json", help="Stdout holds JSON documents, with this or without.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Argument(metavar="key=value…", help="Parameters; dots nest, key=@file sends a file."),
]
Strict = Annotated[bool, typer.Option("--strict", help="The platform's page to the letter.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before spending.")]
Platform = Annotated[str, typer.Option("--platform", help="runware or nanogpt.")]


def fail(text: str, code: int) -> NoReturn:
    """Say why, and end."""
    typer.echo(text, err=True)
    raise typer.Exit(code)


def confirm(question: str) -> None:
    """Go on after a yes; anything else ends the command.

    Typer's own question writes a space to stdout, which holds data and may be a file.
    """
    typer.echo(f"{question} [y/N]: ", err=True, nl=False)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        fail("Nothing was done.", FAILED)


def platform_named(name: str) -> str:
    """A platform that is shipped; any other ends the command."""
    from submitter.platforms.catalogue import SHIPPED

    if name not in SHIPPED:
        fail(f"There is no platform {name!r}; known: {', '.join(SHIPPED)}.", USAGE)
    return name


def parameters_of(assignments: Sequence[str] | None, platform: str) -> dict[str, Any]:
    """key=value arguments; unreadable ones end the command."""
    from submitter.errors import MalformedAssignment
    from submitter.tasks import parse_assignments

    try:
        return parse_assignments(assignments or [], platform)
    except MalformedAssignment as error:
        fail(str(error), USAGE)


def tags_of(texts: Sequence[str] | None) -> dict[str, str]:
    """--tag options; unreadable ones end the command."""
    tags = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals:
            fail(f"Write a tag as key=value, not {text!r}.", USAGE)
        tags[name] = value
    return tags


def object_of(text: str, option: str) -> dict[str, Any]:
    """A JSON object out of a text; anything else ends the command."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        fail(f"{option} must be a JSON object: {error}.", USAGE)
    if not isinstance(found, dict):
        fail(f"{option} must be a JSON object.", USAGE)
    return found


@contextmanager
def exit_codes() -> Iterator[None]:
    """Errors of the flows, as a sentence and a code."""
    from receiver.client import ApiRefused, Unreachable
    from submitter.errors import InvalidTask, SubmitterError

    try:
        yield
    except InvalidTask as error:
        # A warning may name what an error is about: a parameter that is misspelt, and so missing.
        tell_findings((one for one in error.findings if one.severity == "warning"), err=True)
        fail(str(error), FAILED)
    except SubmitterError as error:
        fail(str(error), code_of(error))
    except Unreachable as error:
        fail(str(error), UNREACHABLE)
    except ApiRefused as error:
        fail(str(error), _REFUSALS.get(error.status, FAILED))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def code_of(error: Exception) -> int:
    """The exit code of one of the submitter's errors."""
    from submitter.errors import (
        KeyRefused,
        LedgerUnavailable,
        MissingKey,
        UnusableUrl,
        WaitTimedOut,
    )

    match error:
        case UnusableUrl():
            return UNREACHABLE
        case MissingKey() | KeyRefused():
            return AUTH
        case WaitTimedOut():
            return TIMED_OUT
        case LedgerUnavailable():
            return _REFUSALS.get(error.status or 0, UNREACHABLE)
        case _:
            return FAILED


def tell_findings(findings: Iterable[Finding], *, err: bool, line: int | None = None) -> None:
    """What the rules have to say, a line each."""
    where = "" if line is None else f"line {line}: "
    for finding in findings:
        text = f"{where}{finding.severity}: {finding.parameter}: {finding.message}"
        typer.echo(text, err=err)


def tell_task(task: SubmittedTask, as_json: bool, line: int | None = None) -> None:
    """A task that was submitted: its id, and what there was to say of it."""
    tell_findings(task.warnings, err=True, line=line)
    where = "" if line is None else f"line {line}: "
    if task.in_flight:
        said = "Another caller is submitting it right now; this one sent nothing."
        typer.echo(f"{where}{said}", err=True)
    if as_json:
        numbered = {} if line is None else {"line": line}
        shown = {**numbered, "task": task.id, "in_flight": task.in_flight}
        typer.echo(json.dumps(shown))
    else:
        typer.echo(task.id if line is None else f"{line}  {task.id}")


def tell_result(result: Result, as_json: bool, *, named: bool = False) -> None:
    """One result; `named`: of which task."""
    which = f"{result.task_id}  " if named else ""
    if as_json:
        typer.echo(result.model_dump_json(exclude={"raw"}, exclude_none=True))
    elif result.error is not None:
        typer.echo(f"{which}{result.index}  failed  {result.error.code}: {result.error.message}")
    else:
        cost = "" if result.cost is None else f"  ${result.cost:g}"
        url = result.media[0].url if result.media else "-"
        typer.echo(f"{which}{result.index}  {url}{cost}")


def tell_end(task: Task, as_json: bool, *, named: bool = False) -> None:
    """What became of a whole task."""
    if as_json:
        typer.echo(task.model_dump_json(exclude={"request"}, exclude_none=True))
    which = f"{task.id}  " if named else ""
    typer.echo(f"{which}{task.status.value}: {task.succeeded} of {task.expected}", err=True)


def end_with(failed: int, of: int) -> None:
    """Exit as the number of failures asks for."""
    if failed:
        raise typer.Exit(SOME_FAILED if failed < of else FAILED)
