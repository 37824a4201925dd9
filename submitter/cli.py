"""Floor 5, assembly: the submitter's commands of `reelhook`; flows are imported when called.

Human text goes to stderr, data to stdout. Exit codes as receiver/cli has them: 0 ok, 1 failure,
2 usage, 3 no receiver, 4 auth, 5 not found, 6 timed out, 7 some results failed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from submitter.simulator.command import simulate

if TYPE_CHECKING:
    from receiver.client import Result, Task
    from submitter.handle import SubmittedTask
    from submitter.reconcile import Polled
    from submitter.submit import Submitter

FAILED, USAGE, UNREACHABLE, AUTH, NOT_FOUND, TIMED_OUT, SOME_FAILED = range(1, 8)

# What a receiver that did answer means by a status; with any other it is none of ours.
_REFUSALS = {401: AUTH, 403: AUTH, 404: NOT_FOUND, 409: FAILED, 413: FAILED, 422: FAILED}

app = typer.Typer(no_args_is_help=True)
app.command("simulate")(simulate)

Json = Annotated[bool, typer.Option("--json", help="One JSON document a line on stdout.")]
Assignments = Annotated[
    list[str] | None, typer.Argument(metavar="key=value…", help="Parameters; dots nest.")
]
Strict = Annotated[bool, typer.Option("--strict", help="The platform's page to the letter.")]


def _fail(text: str, code: int) -> NoReturn:
    typer.echo(text, err=True)
    raise typer.Exit(code)


def _parameters(assignments: Sequence[str] | None) -> dict[str, Any]:
    from submitter.errors import MalformedAssignment
    from submitter.tasks import parse_assignments

    try:
        return parse_assignments(assignments or [])
    except MalformedAssignment as error:
        _fail(str(error), USAGE)


def _tags(texts: Sequence[str]) -> dict[str, str]:
    tags = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            _fail(f"Write a tag as key=value, not {text!r}.", USAGE)
        tags[name] = value
    return tags


def _object(text: str, option: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        _fail(f"{option} must be a JSON object: {error}.", USAGE)
    if not isinstance(found, dict):
        _fail(f"{option} must be a JSON object.", USAGE)
    return found


@app.command()
def submit(
    model: Annotated[str, typer.Argument(help="Such as pixverse:1@6.")] = "",
    assignments: Assignments = None,
    results: Annotated[int, typer.Option("--results", "-n", min=1, max=4)] = 1,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="key=value, in the URL.")] = None,
    metadata: Annotated[str, typer.Option(help="A JSON object, kept private.")] = "{}",
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key never submits twice.")
    ] = None,
    resume: Annotated[str, typer.Option(help="Finish this task's submit instead.")] = "",
    strict: Strict = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it to the end.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to watch; 0 is for ever.")] = 0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before spending.")] = False,
    as_json: Json = False,
) -> None:
    """Submit a task with a signed webhookURL; prints its id.

    reelhook submit pixverse:1@6 prompt="a paper boat" width=1280 height=720 duration=5 -n 2 --watch
    reelhook submit --resume 24cd5dff-cb81-4db5-8506-b72a9425f9d1
    """
    if not model and not resume:
        _fail("Name a model, such as pixverse:1@6, or a task to --resume.", USAGE)
    options: dict[str, Any] = {
        "number_results": results,
        "tags": _tags(tag or []),
        "metadata": _object(metadata, "--metadata"),
        "idempotency_key": idempotency_key,
        "strict": strict,
    }
    parameters = _parameters(assignments)
    _ask_before_spending(yes)

    async def use(submitter: Submitter) -> None:
        if resume:
            task = await submitter.resume(resume)
        else:
            task = await submitter.submit(model, parameters, **options)
        _tell(task, as_json)
        if watch:
            await _watch(task, timeout, as_json)

    _run(use)


def _ask_before_spending(yes: bool) -> None:
    from submitter.platforms.answers import is_local
    from submitter.platforms.catalogue import DEFAULT, base_url_in

    local = is_local(base_url_in(os.environ, DEFAULT))
    if not yes and not local and sys.stdin.isatty():
        typer.confirm("This spends money at Runware. Go on?", abort=True, err=True)


def _run(use: Any) -> None:
    import asyncio

    import stamina.instrumentation

    from submitter.submit import Submitter

    stamina.instrumentation.set_on_retry_hooks([])  # they would write among our data

    async def run() -> None:
        async with Submitter.from_env() as submitter:
            await use(submitter)

    with _exit_codes():
        asyncio.run(run())


@contextmanager
def _exit_codes() -> Iterator[None]:
    from receiver.client import ApiRefused, Unreachable
    from submitter.errors import (
        KeyRefused,
        LedgerUnavailable,
        MissingKey,
        SubmitterError,
        WaitTimedOut,
    )

    try:
        yield
    except (MissingKey, KeyRefused) as error:
        _fail(str(error), AUTH)
    except WaitTimedOut as error:
        _fail(str(error), TIMED_OUT)
    except LedgerUnavailable as error:
        _fail(str(error), _REFUSALS.get(error.status or 0, UNREACHABLE))
    except Unreachable as error:
        _fail(str(error), UNREACHABLE)
    except ApiRefused as error:
        _fail(str(error), _REFUSALS.get(error.status, FAILED))
    except SubmitterError as error:
        _fail(str(error), FAILED)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _tell(task: SubmittedTask, as_json: bool) -> None:
    for finding in task.warnings:
        typer.echo(f"{finding.severity}: {finding.parameter}: {finding.message}", err=True)
    if task.in_flight:
        typer.echo("Another caller is submitting it right now; this one sent nothing.", err=True)
    typer.echo(json.dumps({"task": task.id, "in_flight": task.in_flight}) if as_json else task.id)


async def _watch(task: SubmittedTask, timeout: float, as_json: bool) -> None:
    import asyncio

    from submitter.errors import WaitTimedOut

    try:
        async with asyncio.timeout(timeout or None):
            async for result in task.results():
                _tell_result(result, as_json)
            done = await task.wait()
    except TimeoutError:
        raise WaitTimedOut(task_id=task.id, waited_s=timeout) from None
    _conclude(done, as_json)


def _tell_result(result: Result, as_json: bool) -> None:
    if as_json:
        typer.echo(result.model_dump_json(exclude={"raw"}, exclude_none=True))
    elif result.error is not None:
        typer.echo(f"{result.index}  failed  {result.error.code}: {result.error.message}")
    else:
        cost = "" if result.cost is None else f"  ${result.cost:g}"
        typer.echo(f"{result.index}  {result.media[0].url if result.media else '-'}{cost}")


def _conclude(task: Task, as_json: bool) -> None:
    if as_json:
        typer.echo(task.model_dump_json(exclude={"request"}, exclude_none=True))
    typer.echo(f"{task.status.value}: {task.succeeded} of {task.expected}", err=True)
    if task.failed:
        raise typer.Exit(SOME_FAILED if task.succeeded else FAILED)


@app.command()
def validate(
    model: Annotated[str, typer.Argument(help="Such as pixverse:1@6; - reads a task from stdin.")],
    assignments: Assignments = None,
    results: Annotated[int, typer.Option("--results", "-n")] = 1,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Check a task against the model's rules; sends nothing.

    reelhook validate pixverse:1@6 prompt="a paper boat" width=1280 height=720 duration=7
    """
    from submitter.rules import check

    parameters: Mapping[str, Any]
    if model == "-":
        parameters = _object(sys.stdin.read(), "The task on stdin")
        model = str(parameters.get("model", ""))
    else:
        parameters = {"numberResults": results, **_parameters(assignments)}
    findings = check("runware", model, dict(parameters), strict=strict)
    if as_json:
        typer.echo(json.dumps({"findings": [finding.as_json() for finding in findings]}))
    for finding in () if as_json else findings:
        typer.echo(f"{finding.severity}: {finding.parameter}: {finding.message}")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(FAILED)
    if not findings and not as_json:
        typer.echo("Nothing to object.", err=True)


@app.command()
def reconcile(
    once: Annotated[bool, typer.Option("--once", help="Poll what is due, then exit.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Tasks in work at once.")] = 8,
    rate: Annotated[
        float, typer.Option(min=0.1, max=1000, help="Questions to the platform a second.")
    ] = 5.0,
    as_json: Json = False,
) -> None:
    """Fetch results whose callback never came, until it is stopped.

    Without --once it never ends by itself, so that it can stand beside the receiver in a Procfile:
    it waits for a receiver that does not answer, and idles without RUNWARE_API_KEY.

    reelhook reconcile
    reelhook reconcile --once --json
    """
    import asyncio
    from collections import Counter

    from submitter.reconcile import Found
    from submitter.reconciler import drain, keep_on

    counts: Counter[Found] = Counter()

    def tell(polled: Polled) -> None:
        counts[polled.found] += 1
        _tell_polled(polled, as_json)

    def note(text: str) -> None:
        typer.echo(text, err=True)

    with _exit_codes():
        if not once:
            asyncio.run(keep_on(os.environ, limit=limit, rate=rate, tell=tell, note=note))
            return
        asyncio.run(drain(os.environ, limit=limit, rate=rate, tell=tell))
    if not as_json and not counts:
        typer.echo("Nothing is due.", err=True)
    if failed := counts.total() - counts[Found.POSTED] - counts[Found.UNKNOWN]:
        raise typer.Exit(SOME_FAILED if failed < counts.total() else FAILED)


def _tell_polled(polled: Polled, as_json: bool) -> None:
    if as_json:
        shown = {"task": polled.task, "found": polled.found, "detail": polled.detail or None}
        typer.echo(json.dumps(shown))
    else:
        why = f": {polled.detail}" if polled.detail else ""
        typer.echo(f"{polled.task}  {polled.found}{why}")


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Run the main job on this machine alone: receiver, simulator, reconciler, checking consumer.

    reelhook demo
    """
    import asyncio

    from submitter.demo import run

    try:
        raise typer.Exit(asyncio.run(run(keep=keep, as_json=as_json)))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@app.command()
def dev(
    tunnel: Annotated[
        Literal["auto", "cloudflared", "ngrok", "ssh"] | None,
        typer.Option(help="The program that makes us reachable."),
    ] = None,
    ssh_destination: Annotated[str, typer.Option(help="user@host for --tunnel ssh.")] = "",
    ssh_public_url: Annotated[
        str | None, typer.Option(help="Its https URL; {port} allowed.")
    ] = None,
    ssh_remote_port: Annotated[int | None, typer.Option(help="Port there; 0 takes one.")] = None,
    ssh_bind: Annotated[str, typer.Option(help="Address there.")] = "",
    ssh_option: Annotated[list[str] | None, typer.Option(help="Passed to ssh.")] = None,
    port: Annotated[int, typer.Option(help="The public routes' port; 0 takes a free one.")] = 0,
    admin_port: Annotated[int, typer.Option(help="The port for all else.")] = 0,
    check: Annotated[bool, typer.Option(help="Look from outside before it is ready.")] = True,
) -> None:
    """Run the receiver for development, reachable through a tunnel.

    reelhook dev --tunnel cloudflared
    reelhook dev --tunnel ssh --ssh-destination me@host --ssh-public-url https://host
    """
    from functools import partial

    import anyio

    from submitter.dev import DevOptions
    from submitter.dev import dev as flow
    from submitter.notices import Ready
    from submitter.tunnel import Ssh, TunnelRefused

    try:
        ssh = (
            Ssh(ssh_destination, ssh_public_url, ssh_remote_port, ssh_bind, tuple(ssh_option or ()))
            if ssh_destination
            else None
        )
    except TunnelRefused as error:
        _fail(str(error), USAGE)

    def tell(event: Any) -> None:
        typer.echo(event.text, err=True)
        if isinstance(event, Ready):
            typer.echo(json.dumps(event.as_json()))

    options = DevOptions(tunnel=tunnel, ssh=ssh, port=port, admin_port=admin_port, check=check)
    raise typer.Exit(anyio.run(partial(flow, options, notify=tell)))
