"""Floor 5, assembly: `submit`, `validate`, `models`: what is asked of the platforms."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import methodcaller
from typing import TYPE_CHECKING, Annotated, Any

import typer

from submitter.cli.lines import Defaults, Line, draft_of, findings_by_line, read_tasks, refuse_wrong
from submitter.cli.output import (
    FAILED,
    USAGE,
    Assignments,
    Json,
    Platform,
    Strict,
    Yes,
    code_of,
    confirm,
    end_with,
    exit_codes,
    fail,
    object_of,
    parameters_of,
    platform_named,
    tags_of,
    tell_end,
    tell_findings,
    tell_result,
    tell_task,
)

if TYPE_CHECKING:
    from receiver.client import Task
    from submitter.drafts import Draft
    from submitter.errors import Finding
    from submitter.handle import SubmittedTask
    from submitter.submit import Submitted, Submitter

RUNWARE = "runware"


def submit(
    model: Annotated[str, typer.Argument(help="Such as pixverse:1@6.")] = "",
    assignments: Assignments = None,
    platform: Annotated[
        str, typer.Option("--platform", help="runware (the default) or nanogpt.")
    ] = "",
    file: Annotated[
        str, typer.Option("--file", help="Tasks as JSON, one object a line; - is stdin.")
    ] = "",
    results: Annotated[
        int, typer.Option("--results", "-n", min=1, max=4, help="How many of each task.")
    ] = 1,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="key=value, in the URL.")] = None,
    metadata: Annotated[str, typer.Option(help="A JSON object, kept private.")] = "{}",
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key never submits twice.")
    ] = None,
    task_id: Annotated[str | None, typer.Option("--id", help="The task's id, a UUID.")] = None,
    resume: Annotated[str, typer.Option(help="Finish this task's submit instead.")] = "",
    run: Annotated[
        str | None, typer.Option("--run", help="With --resume: the platform's name for it.")
    ] = None,
    strict: Strict = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it to the end.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to watch; 0 is for ever.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, send nothing.")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Submit tasks with signed webhookURLs; prints their ids.

    A line of --file holds `model`, the parameters, and what it likes of platform, tags, metadata,
    numberResults, idempotencyKey. All lines are checked before the first is sent.

    reelhook submit pixverse:1@6 prompt="a paper boat" width=1280 height=720 duration=5 -n 2 --watch
    reelhook submit sora-2 --platform nanogpt prompt="a paper boat" seconds=4 --watch
    reelhook submit --file tasks.jsonl --dry-run
    reelhook submit --resume 24cd5dff-cb81-4db5-8506-b72a9425f9d1
    """
    if platform:
        platform_named(platform)
    defaults = Defaults(
        platform or RUNWARE, results, tags_of(tag), object_of(metadata, "--metadata"), strict
    )
    follow = _Follow(watch, timeout, as_json)
    if run and not resume:
        fail("Say which task has that run: --resume TASK --run RUN.", USAGE)
    if file:
        alone = (model, assignments, idempotency_key, task_id, resume, run)
        if any(alone):
            fail("With --file, the tasks stand in the file, and nothing beside it.", USAGE)
        lines = read_tasks(file, defaults)
        _only_check(lines, as_json) if dry_run else _submit_lines(lines, yes, follow)
    elif resume:
        if dry_run:
            fail("There is nothing to check: what is resumed was checked before.", USAGE)
        _resume(resume, platform, run, yes, follow)
    elif model:
        _check_model(model)
        parameters = parameters_of(assignments, defaults.platform)
        draft = _draft(model, parameters, defaults, idempotency_key, task_id)
        if dry_run:
            _only_check([Line(1, defaults.platform, draft)], as_json)
        else:
            _submit_one(draft, defaults.platform, yes, follow)
    else:
        fail("Name a model, such as pixverse:1@6, a --file, or a task to --resume.", USAGE)


@dataclass(frozen=True, slots=True)
class _Follow:
    """What is done once a task is submitted."""

    watch: bool
    timeout: float
    as_json: bool

    async def to_the_end(self, task: SubmittedTask, *, named: bool = False) -> Task:
        import asyncio

        from submitter.errors import WaitTimedOut

        try:
            async with asyncio.timeout(self.timeout or None):
                async for result in task.results():
                    tell_result(result, self.as_json, named=named)
                done = await task.wait()
        except TimeoutError:
            raise WaitTimedOut(task_id=task.id, waited_s=self.timeout) from None
        tell_end(done, self.as_json, named=named)
        return done


def _only_check(lines: Sequence[Line], as_json: bool) -> None:
    """What `submit` would say of its tasks before it sends them."""
    from collections import Counter

    from submitter.platforms.catalogue import SHIPPED

    _tell_checked(findings_by_line(lines), as_json, numbered=len(lines) > 1)
    for name, count in Counter(line.platform for line in lines).items():
        many = f"{count} tasks" if count > 1 else "One task"
        typer.echo(f"{many} would be submitted to {SHIPPED[name].title}.", err=True)


def _check_model(name: str) -> None:
    # Else a parameter would be sent as the name of a model that nobody has rules for.
    if "=" in name:
        fail(f"Name a model first, such as pixverse:1@6; {name!r} is a parameter.", USAGE)


def _draft(
    model: str,
    parameters: dict[str, Any],
    defaults: Defaults,
    key: str | None,
    task_id: str | None,
) -> Draft:
    from submitter.drafts import Draft

    return Draft(
        model=model,
        parameters=parameters,
        number_results=defaults.results,
        tags=defaults.tags,
        metadata=defaults.metadata,
        idempotency_key=key,
        task_id=task_id,
        strict=defaults.strict,
    )


def _submit_one(draft: Draft, platform: str, yes: bool, follow: _Follow) -> None:
    _ask_before_spending(yes, {platform: [draft]})

    async def use(submitter: Submitter) -> None:
        (told,) = await submitter.submit_many([draft])
        await _follow_one(told, follow)

    _run(platform, use)


def _resume(task_id: str, platform: str, run: str | None, yes: bool, follow: _Follow) -> None:
    name = platform or _platform_of(task_id)
    _ask_before_spending(yes, {name: []})

    async def use(submitter: Submitter) -> None:
        await _follow_one(await submitter.resume(task_id, run=run), follow)

    _run(name, use)


async def _follow_one(told: Submitted, follow: _Follow) -> None:
    from submitter.errors import SubmitterError

    if isinstance(told, SubmitterError):
        raise told
    tell_task(told, follow.as_json)
    if follow.watch:
        done = await follow.to_the_end(told)
        end_with(done.failed, done.succeeded + done.failed)


def _platform_of(task_id: str) -> str:
    """Whose task it is, as the ledger has it."""
    import asyncio

    from receiver.client import Client
    from submitter.environment import read

    async def look() -> str:
        found = read(os.environ)
        async with Client(found.ledger_url, found.ledger_token) as ledger:
            task = await ledger.task(task_id)
        return task.platform if task else RUNWARE

    with exit_codes():
        return platform_named(asyncio.run(look()))


def _submit_lines(lines: Sequence[Line], yes: bool, follow: _Follow) -> None:
    refuse_wrong(lines)
    platforms = list(dict.fromkeys(line.platform for line in lines))
    _ask_before_spending(yes, dict.fromkeys(platforms, ()), len(lines))
    failed: list[int] = []

    async def one(platform: str) -> None:
        from submitter.submit import Submitter

        mine = [line for line in lines if line.platform == platform]
        async with Submitter.from_env(platform=platform) as submitter:
            told = await submitter.submit_many([line.draft for line in mine])
            pairs = [*zip(mine, told, strict=True)]
            failed.extend(_tell_failed(pairs, follow.as_json))
            if follow.watch:
                failed.extend(await _watch_all([one for _, one in pairs], follow))

    async def all_of_them() -> None:
        for platform in platforms:
            await one(platform)

    _quietly(all_of_them)
    same = len(set(failed)) == 1
    if same and len(failed) == len(lines):
        raise typer.Exit(failed[0])  # no receiver, no right: what stops one stops all
    end_with(len(failed), len(lines))


def _tell_failed(pairs: Sequence[tuple[Line, Submitted]], as_json: bool) -> list[int]:
    """Tell of each line what became of it; the exit codes of those that failed."""
    from submitter.errors import SubmitterError

    codes = []
    for line, told in pairs:
        if not isinstance(told, SubmitterError):
            tell_task(told, as_json, line.number)
            continue
        codes.append(code_of(told))
        typer.echo(f"line {line.number}: {told}", err=True)
        if as_json:
            fault = {"code": told.code, "message": str(told)}
            shown = {"line": line.number, "task": getattr(told, "task_id", None), "error": fault}
            typer.echo(json.dumps(shown))
    return codes


async def _watch_all(told: Sequence[Submitted], follow: _Follow) -> list[int]:
    import asyncio

    from submitter.errors import SubmitterError

    tasks = [one for one in told if not isinstance(one, SubmitterError)]
    ends = await asyncio.gather(*(follow.to_the_end(task, named=True) for task in tasks))
    return [FAILED for done in ends if done.failed]


def _ask_before_spending(yes: bool, asked: Mapping[str, Sequence[Draft]], tasks: int = 1) -> None:
    """Ask, by platform, for what is to be sent there; what surely fails is not asked for."""
    from submitter.platforms.answers import is_local
    from submitter.platforms.catalogue import SHIPPED, base_url_in

    if yes or not sys.stdin.isatty():
        return
    with exit_codes():
        paid = [name for name in asked if not is_local(base_url_in(os.environ, name))]
    if paid:
        for name, drafts in asked.items():
            _run(name, methodcaller("check", drafts))
        where = " and ".join(SHIPPED[name].title for name in paid)
        many = "" if tasks == 1 else f", for {tasks} tasks"
        confirm(f"This spends money at {where}{many}. Go on?")


def _run(platform: str, use: Callable[[Submitter], Awaitable[None]]) -> None:
    async def run() -> None:
        from submitter.submit import Submitter

        async with Submitter.from_env(platform=platform) as submitter:
            await use(submitter)

    _quietly(run)


def _quietly(run: Callable[[], Any]) -> None:
    import asyncio

    import stamina.instrumentation

    stamina.instrumentation.set_on_retry_hooks([])  # they would write among our data
    with exit_codes():
        asyncio.run(run())


def validate(
    model: Annotated[
        str, typer.Argument(help="Such as pixverse:1@6; - reads a task from stdin.")
    ] = "",
    assignments: Assignments = None,
    platform: Platform = RUNWARE,
    file: Annotated[
        str, typer.Option("--file", help="Tasks as JSON, one object a line; - is stdin.")
    ] = "",
    results: Annotated[int, typer.Option("--results", "-n", help="How many of each task.")] = 1,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Check tasks against their models' rules; sends nothing.

    reelhook validate pixverse:1@6 prompt="a paper boat" width=1280 height=720 duration=7
    reelhook validate --file tasks.jsonl
    """
    defaults = Defaults(platform_named(platform), results, strict=strict)
    if file:
        if model or assignments:
            fail("With --file, the tasks stand in the file, and nothing beside it.", USAGE)
        lines = read_tasks(file, defaults)
    elif model == "-":
        lines = [Line(1, *_from_stdin(defaults))]
    elif model:
        _check_model(model)
        parameters = parameters_of(assignments, platform)
        lines = [Line(1, platform, _draft(model, parameters, defaults, None, None))]
    else:
        fail("Name a model, such as pixverse:1@6, or a --file.", USAGE)
    _tell_checked(findings_by_line(lines), as_json, numbered=bool(file))


def _from_stdin(defaults: Defaults) -> tuple[str, Draft]:
    task = object_of(sys.stdin.read(), "The task on stdin")
    try:
        return draft_of({"model": "", **task}, defaults)
    except ValueError as error:
        fail(f"The task on stdin can't be read: {error}.", USAGE)


def _tell_checked(
    found: Iterable[tuple[Line, Sequence[Finding]]], as_json: bool, *, numbered: bool
) -> None:
    wrong = said = 0
    for line, findings in found:
        said += len(findings)
        wrong += any(finding.severity == "error" for finding in findings)
        number = {"line": line.number} if numbered else {}
        if as_json:
            shown = {**number, "findings": [finding.as_json() for finding in findings]}
            typer.echo(json.dumps(shown))
        else:
            tell_findings(findings, err=False, line=line.number if numbered else None)
    if wrong:
        raise typer.Exit(FAILED)
    if not said and not as_json:
        typer.echo("Nothing to object.", err=True)


def models(
    platform: Annotated[str, typer.Option("--platform", help="Only of this one.")] = "",
    as_json: Json = False,
) -> None:
    """List models: those that we have rules for, and what a platform itself lists.

    reelhook models
    reelhook models --platform nanogpt --json
    """
    import asyncio

    from submitter.platforms.catalogue import SHIPPED

    names = [platform_named(platform)] if platform else [*SHIPPED]
    with exit_codes():
        for name in names:
            for found in asyncio.run(_models(name)):
                _tell_model(name, found, as_json)


async def _models(name: str) -> list[dict[str, Any]]:
    from submitter.platforms.catalogue import SHIPPED, base_url_in, key_in
    from submitter.rules import models as with_rules

    ours = with_rules(name)
    discover = SHIPPED[name].discover
    key, base_url = key_in(os.environ, name), base_url_in(os.environ, name)
    listed = [] if discover is None else await discover(key, base_url)
    known = {model["id"] for model in listed}
    return [
        *({"id": model, "rules": True} for model in ours if model not in known),
        *({**model, "rules": model["id"] in ours} for model in listed),
    ]


def _tell_model(platform: str, found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"platform": platform, **found}))
        return
    rules = "checked" if found["rules"] else ""
    name = found.get("name", "")
    typer.echo("  ".join(part for part in (platform, str(found["id"]), str(name), rules) if part))
