"""Floor 5, assembly: tasks out of JSON, one object a line, checked before any of them is sent."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import typer

from submitter.cli.output import FAILED, USAGE, fail, tell_findings

if TYPE_CHECKING:
    from submitter.drafts import Draft
    from submitter.errors import Finding

# What stands in a line beside the parameters, as the platforms and our API spell it.
_OURS: Final = ("model", "platform", "tags", "metadata", "idempotencyKey", "taskUUID")
_KINDS: Final[Mapping[str, tuple[type, str]]] = {
    "model": (str, "a text"),
    "platform": (str, "a text"),
    "tags": (dict, "an object of texts"),
    "metadata": (dict, "an object"),
    "idempotencyKey": (str, "a text"),
    "taskUUID": (str, "a text"),
    "parameters": (dict, "an object"),
}


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a line that does not say otherwise gets."""

    platform: str
    results: int = 1
    tags: Mapping[str, str] | None = None
    metadata: Mapping[str, Any] | None = None
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A task of a file, with the number of its line."""

    number: int
    platform: str
    draft: Draft


def read_tasks(name: str, defaults: Defaults) -> list[Line]:
    """The tasks of a file (`-`: stdin). Ends the command, naming every line that is none."""
    found, wrong = [], []
    for number, text in _texts(name):
        try:
            found.append(Line(number, *draft_of(_object(text), defaults)))
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
    if wrong:
        fail("\n".join([*wrong, "Nothing was sent."]), USAGE)
    if not found:
        fail(f"There is no task in {name}.", USAGE)
    return found


def _texts(name: str) -> Iterator[tuple[int, str]]:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"Cannot read {name}: {getattr(error, 'strerror', None) or error}.", USAGE)
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except RecursionError:
        found = None
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found


def draft_of(task: Mapping[str, Any], defaults: Defaults) -> tuple[str, Draft]:
    """A task as JSON: its platform, and the draft. Raises ValueError, which says what is wrong."""
    from submitter.drafts import Draft
    from submitter.platforms.catalogue import SHIPPED

    for name, (kind, text) in _KINDS.items():
        if name in task and not isinstance(task[name], kind):
            raise ValueError(f"{name} must be {text}")
    platform = task.get("platform", defaults.platform)
    if platform not in SHIPPED:
        raise ValueError(f"there is no platform {platform!r}; known: {', '.join(SHIPPED)}")
    parameters = {name: task[name] for name in task if name not in _OURS}
    nested = parameters.pop("parameters", {})
    if "model" not in task and "runId" not in {**parameters, **nested}:
        raise ValueError("it names no model")
    return platform, Draft(
        model=task.get("model", ""),
        parameters={**parameters, **nested},
        number_results=defaults.results,
        tags={**(defaults.tags or {}), **_texts_of(task.get("tags", {}))},
        metadata={**(defaults.metadata or {}), **task.get("metadata", {})},
        idempotency_key=task.get("idempotencyKey"),
        task_id=_uuid(task.get("taskUUID")),
        strict=defaults.strict,
    )


def _uuid(text: str | None) -> str | None:
    try:
        return text and str(UUID(text))
    except ValueError:
        raise ValueError(f"taskUUID must be a UUID, not {text!r}") from None


def _texts_of(tags: Mapping[str, Any]) -> dict[str, str]:
    if not all(isinstance(value, str) for value in tags.values()):
        raise ValueError("tags must be an object of texts")
    return dict(tags)


def findings_by_line(lines: Iterable[Line]) -> list[tuple[Line, tuple[Finding, ...]]]:
    """What the rules have to say about each line."""
    from submitter.drafts import findings_of
    from submitter.errors import Finding, InvalidTask, UnusableMedia

    found: list[tuple[Line, tuple[Finding, ...]]] = []
    for line in lines:
        try:
            findings = findings_of(line.draft, line.platform)
        except InvalidTask as error:
            findings = error.findings
        except UnusableMedia as error:
            findings = (Finding("error", error.code, error.parameter, str(error)),)
        found.append((line, findings))
    return found


def refuse_wrong(lines: Iterable[Line]) -> None:
    """End the command if the rules refuse a line; nothing of the others is sent then either."""
    wrong = [
        (line, findings)
        for line, findings in findings_by_line(lines)
        if any(finding.severity == "error" for finding in findings)
    ]
    for line, findings in wrong:
        tell_findings(findings, err=True, line=line.number)
    if wrong:
        typer.echo("Nothing was sent.", err=True)
        raise typer.Exit(FAILED)
