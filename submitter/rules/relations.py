"""Rules about parameters together: each yields what it has to say (floor 1, pure)."""

from collections.abc import Iterator
from typing import Any, assert_never

from submitter.rules.kinds import (
    Absent,
    Exclusive,
    RelationRule,
    Renamed,
    Required,
    Table,
    Together,
)
from submitter.rules.scope import Scope
from submitter.rules.values import dig, either, is_pair, is_whole, show
from submitter.tasks import Finding


def relate(scope: Scope, rule: RelationRule) -> Iterator[Finding]:
    """What the rule says, whichever of its parameters are there."""
    match rule:
        case Required(path):
            if scope.find(path)[1] is Absent.ABSENT:
                message = f"Add {scope.full(path)}: the request needs it."
                yield from scope.finding(rule.level, "missing_parameter", path, message)
        case Together():
            yield from _together(scope, rule)
        case Exclusive():
            yield from _exclusive(scope, rule)
        case Table():
            yield from _table(scope, rule)
        case Renamed():
            yield from _former_name(scope, rule)
        case _:
            assert_never(rule)


def _together(scope: Scope, rule: Together) -> Iterator[Finding]:
    absent = [path for path in rule.paths if not scope.given(path)]
    if len(absent) == len(rule.paths):
        return
    for path in absent:
        others = " and ".join(scope.full(p) for p in rule.paths if p != path)
        message = f"Add {scope.full(path)}: it goes together with {others}."
        yield from scope.finding(rule.level, rule.code, path, message)


def _exclusive(scope: Scope, rule: Exclusive) -> Iterator[Finding]:
    present = [
        [path for path in group if scope.given(path)]
        for group in rule.groups
        if any(scope.given(path) for path in group)
    ]
    if len(present) < 2:
        return
    names = either(" and ".join(scope.full(p) for p in group) for group in present)
    message = f"Send only {names}, not both. {rule.hint}".rstrip()
    name = scope.find(present[-1][0])[0]
    yield from scope.finding(rule.level, rule.code, name, message)


def _table(scope: Scope, rule: Table) -> Iterator[Finding]:
    pair = scope.pair(rule.paths)
    numbers = [
        finding
        for path, value in zip(rule.paths, pair, strict=True)
        if value is not Absent.ABSENT and not is_whole(value)
        for finding in scope.wrong_kind(path, value, ("integer",), rule.level)
    ]
    yield from numbers
    if numbers or Absent.ABSENT in pair or is_pair(pair, rule.pairs):
        return
    near = _size(_nearest(pair, rule.pairs))
    names = " and ".join(scope.full(path) for path in rule.paths)
    message = f"Set {names} to a size the model has, such as {near}; it is {_size(pair)}."
    allowed = tuple(_size(each) for each in rule.pairs)
    yield from scope.finding(rule.level, rule.code, rule.paths[0], message, allowed)


def _nearest(pair: tuple[Any, Any], pairs: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    # int() first: a float and a huge integer cannot be subtracted.
    width, height = int(pair[0]), int(pair[1])
    return min(pairs, key=lambda each: abs(each[0] - width) + abs(each[1] - height))


def _size(pair: tuple[Any, Any]) -> str:
    return f"{show(pair[0])}x{show(pair[1])}"


def _former_name(scope: Scope, rule: Renamed) -> Iterator[Finding]:
    if dig(scope.root, rule.old) is Absent.ABSENT:
        return
    old = scope.full(rule.old)
    if rule.new is None:
        message = f"Leave out {old}: the model's page no longer has it."
    elif dig(scope.root, rule.new) is not Absent.ABSENT:
        message = f"Leave out {old}: {scope.full(rule.new)} is there, and means the same."
    else:
        message = f"Write {scope.full(rule.new)} instead of {old}, its former name."
    yield from scope.finding(rule.level, "legacy_name", rule.old, message)
