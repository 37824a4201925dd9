"""What rules look at: parameters by name, conditions, a finding's words (floor 1, pure)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, assert_never

from submitter.rules.kinds import (
    ERROR,
    Absent,
    AllOf,
    AnyOf,
    AtLeast,
    Condition,
    Given,
    Is,
    IsKind,
    JsonKind,
    Level,
    Matches,
    Not,
    PairIn,
    Renamed,
    Rule,
    flat,
    paths,
)
from submitter.rules.values import dig, either, is_kind, is_pair, matches, show, within
from submitter.tasks import Finding

KIND_NAMES: dict[JsonKind, str] = {
    "text": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "an object",
    "list": "a list",
    "uuid": "a UUID",
    "url": "an http or https URL",
}


@dataclass(frozen=True, slots=True)
class Scope:
    """The object that rules speak of, in its request: all of it, or one item of a list in it."""

    root: Any
    rules: tuple[Rule, ...]
    request: Any
    prefix: str = ""
    strict: bool = False
    renamed: tuple[Renamed, ...] = field(init=False)

    def __post_init__(self) -> None:
        renamed = tuple(rule for rule in flat(self.rules) if isinstance(rule, Renamed))
        object.__setattr__(self, "renamed", renamed)

    def find(self, path: str) -> tuple[str, Any]:
        """The name a parameter goes by, its former one if need be, and its value."""
        for name in (path, *self.former_names(path)):
            value = dig(self.root, name)
            if value is not Absent.ABSENT:
                return name, value
        return path, Absent.ABSENT

    def former_names(self, path: str) -> Iterator[str]:
        for rule in self.renamed:
            if rule.new == path:
                yield rule.old
            elif rule.new is not None and path.startswith(f"{rule.new}."):
                yield rule.old + path.removeprefix(rule.new)

    def given(self, path: str) -> bool:
        value = self.find(path)[1]
        empty = isinstance(value, list | tuple | dict) and not value
        return not (value is None or value is Absent.ABSENT or empty)

    def pair(self, names: tuple[str, str]) -> tuple[Any, Any]:
        return self.find(names[0])[1], self.find(names[1])[1]

    def known_names(self, path: str) -> list[str]:
        """The names right under `path` that any rule of this scope speaks of."""
        start = f"{path}." if path else ""
        said = (name for rule in flat(self.rules) for name in paths(rule))
        below = (name.removeprefix(start) for name in said if name.startswith(start))
        return sorted({name.partition(".")[0] for name in below} - {""})

    def holds(self, condition: Condition) -> bool:
        match condition:
            case Not(inner):
                return not self.holds(inner)
            case AllOf(inners):
                return all(self.holds(inner) for inner in inners)
            case AnyOf(inners):
                return any(self.holds(inner) for inner in inners)
            case PairIn(names, pairs):
                return is_pair(self.pair(names), pairs)
            case Given(path):
                return self.given(path)
            case _:
                return self.is_so(condition, self.find(condition.path)[1])

    @staticmethod
    def is_so(condition: Is | IsKind | AtLeast | Matches, value: Any) -> bool:
        match condition:
            case Is(_, values):
                return within(value, values)
            case IsKind(_, kind):
                return is_kind(value, kind)
            case AtLeast(_, count):
                return isinstance(value, list | tuple) and len(value) >= count
            case Matches(_, pattern):
                return matches(pattern, value)
            case _:
                assert_never(condition)

    def full(self, name: str) -> str:
        return ".".join(part for part in (self.prefix, name) if part)

    def finding(
        self,
        level: Level,
        code: str,
        name: str,
        message: str,
        allowed: tuple[Any, ...] | None = None,
    ) -> Iterator[Finding]:
        """One finding, or none where the level is silent in this mode."""
        severity = level.strict if self.strict else level.default
        if severity is not None:
            yield Finding(severity, code, self.full(name), message, allowed)

    def wrong_kind(
        self, name: str, value: Any, kinds: tuple[JsonKind, ...], level: Level = ERROR
    ) -> Iterator[Finding]:
        wanted = either(KIND_NAMES[kind] for kind in kinds)
        subject = self.full(name) or "the request"
        message = f"Send {subject} as {wanted}; it is {show(value)}."
        yield from self.finding(level, "invalid_type", name, message)
