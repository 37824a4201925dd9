"""Tasks before they are sent: the noun, its id, and key=value text read into parameters. Pure."""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol, Self, runtime_checkable

from submitter.errors import Finding, MalformedAssignment, Severity

__all__ = [
    "FileInput",
    "Finding",
    "GenerationTask",
    "LocalFile",
    "Severity",
    "new_task_id",
    "parse_assignments",
    "task_id_for_key",
]

# What people write for the platform's own word.
ALIASES = {"runware": {"prompt": "positivePrompt"}}

# A prompt such as 1984 or true is a text, not a number; so are the seconds of Sora ("4").
TEXTS = frozenset(
    {"positivePrompt", "negativePrompt", "prompt", "negative_prompt", "script", "seconds"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationTask:
    """One generation job in the platform's own parameter names."""

    id: str
    platform: str
    model: str
    parameters: dict[str, Any] = field(default_factory=dict)
    number_results: int = 1
    tags: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        parameters: Mapping[str, Any],
        *,
        id: str,
        platform: str,
        model: str,
        tags: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Self:
        """Takes `numberResults` out of the parameters; an unreadable one stays for the rules."""
        rest = dict(parameters)
        wanted = rest.get("numberResults")
        readable = isinstance(wanted, int) and not isinstance(wanted, bool)
        return cls(
            id=id,
            platform=platform,
            model=model,
            number_results=rest.pop("numberResults") if readable else 1,
            parameters=rest,
            tags=dict(tags or {}),
            metadata=dict(metadata or {}),
        )


@runtime_checkable
class FileInput(Protocol):
    """A file on this machine that stands for a media input, such as a `pathlib.Path`."""

    def __fspath__(self) -> str: ...


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file that was named in text, as `image=@cat.jpg`; whoever sends it reads it."""

    path: str

    def __fspath__(self) -> str:
        return self.path


def new_task_id(random_bytes: bytes) -> str:
    """A UUID v4 made of the given 16 bytes."""
    return str(uuid.UUID(bytes=random_bytes, version=4))


def task_id_for_key(project: str, key: str) -> str:
    """The UUID that an idempotency key always stands for within its project."""
    if "\0" in project or not key:
        raise ValueError("a project name holds no NUL, and an idempotency key is not empty")
    text = f"{project}\0{key}".encode("utf-8", "surrogatepass")
    return str(uuid.UUID(bytes=hashlib.sha256(text).digest()[:16], version=4))


def parse_assignments(assignments: Iterable[str], platform: str = "runware") -> dict[str, Any]:
    """Reads `key=value`, `key:=json` and `key=@file`, with dots in a key for nested objects.

    A file is not read here: it comes back as a LocalFile, which `submitter.media.inline` encodes.
    `key:=@file,@other` is a list of files. In JSON a text that starts with @ stays a text.
    """
    aliases = ALIASES.get(platform, {})
    found: dict[tuple[str, ...], Any] = {}
    for text in assignments:
        path, value = _assignment(text, aliases)
        _refuse_overlap(text, path, found)
        found[path] = value
    return _nested(found)


def _assignment(text: str, aliases: Mapping[str, str]) -> tuple[tuple[str, ...], Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise MalformedAssignment(text=text, reason="write it as key=value.")
    forced = name.endswith(":")
    path = _path(text, name.removesuffix(":") if forced else name, aliases)
    if value.startswith("@"):
        return path, _files(text, path, value) if forced else _file(text, path, value[1:])
    if forced:
        return path, _forced_json(text, value)
    return path, _plain(text, path, value)


def _path(text: str, name: str, aliases: Mapping[str, str]) -> tuple[str, ...]:
    first, *rest = name.split(".")
    path = (aliases.get(first, first) if not rest else first, *rest)
    if any(not part or part != part.strip() for part in path):
        raise MalformedAssignment(
            text=text, reason="every part of the key between dots needs a name without spaces."
        )
    return path


def _forced_json(text: str, value: str) -> Any:
    try:
        return _json(value)
    except _DuplicateKey as error:
        raise MalformedAssignment(text=text, reason=str(error)) from error
    except (ValueError, RecursionError) as error:
        raise MalformedAssignment(
            text=text, reason="what follows := has to be JSON; write key=value for a plain text."
        ) from error


def _files(text: str, path: tuple[str, ...], value: str) -> list[LocalFile]:
    return [_file(text, path, name) for name in value[1:].split(",@")]


def _file(text: str, path: tuple[str, ...], name: str) -> LocalFile:
    reason = "a file's name has to follow @"
    if path[-1] in TEXTS:
        reason = "a prompt is not read from a file"
    elif name and "\0" not in name:
        return LocalFile(name)
    raise MalformedAssignment(
        text=text, reason=f'{reason}; write key:="@…" for a text that starts with @.'
    )


def _plain(text: str, path: tuple[str, ...], value: str) -> Any:
    if path[-1] in TEXTS:
        return value
    try:
        parsed = _json(value)
    except _DuplicateKey as error:
        raise MalformedAssignment(text=text, reason=str(error)) from error
    except (ValueError, RecursionError):
        return value
    return value if isinstance(parsed, str) else parsed


def _refuse_overlap(
    text: str, path: tuple[str, ...], found: Mapping[tuple[str, ...], object]
) -> None:
    for other in found:
        shorter = min(len(path), len(other))
        if path[:shorter] == other[:shorter]:
            name = ".".join(other)
            raise MalformedAssignment(text=text, reason=f"{name} is set already; set it once.")


def _nested(found: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for path, value in found.items():
        target = parameters
        for part in path[:-1]:
            target = target.setdefault(part, {})
        target[path[-1]] = value
    return parameters


class _DuplicateKey(Exception):
    """An object in JSON names a key twice."""


def _json(text: str) -> Any:
    return json.loads(
        text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise _DuplicateKey("an object in it names the same key twice.")
    return unique


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large")
    return number
