"""The one reader of the rules (floor 1, pure). It knows kinds of rules, never a model."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, assert_never

from submitter.rules.catalogue import MODELS, rules_for, rules_for_any_model
from submitter.rules.kinds import (
    ADVICE,
    LETTER,
    Absent,
    AllOf,
    AnyOf,
    AtLeast,
    Closed,
    Condition,
    Distinct,
    Each,
    Exclusive,
    Given,
    Is,
    IsKind,
    JsonKind,
    Kind,
    Length,
    Level,
    Not,
    Note,
    OneOf,
    PairIn,
    Range,
    RelationRule,
    Renamed,
    Required,
    Rule,
    Table,
    Together,
    ValueRule,
    When,
    flat,
    paths,
)
from submitter.rules.values import (
    dig,
    either,
    guess,
    is_kind,
    is_whole,
    printable,
    same,
    show,
    within,
)
from submitter.tasks import Finding, GenerationTask

KIND_NAMES: dict[JsonKind, str] = {
    "text": "a text",
    "integer": "a whole number",
    "boolean": "true or false",
    "object": "an object",
    "list": "a list",
    "uuid": "a UUID",
    "url": "an http or https URL",
}


def check(
    platform: str, model: str, parameters: dict[str, Any], *, strict: bool = False
) -> list[Finding]:
    """What the rules have to say about a request, in their order. Changes nothing."""
    known = rules_for(platform, model)
    if known is not None:
        return _findings(known.rules, parameters, strict=strict)
    general = _findings(rules_for_any_model(platform), parameters, strict=strict)
    return [_no_rules(platform, model), *general]


def check_task(task: GenerationTask, *, strict: bool = False) -> list[Finding]:
    """`check` for a task, whose number of results stands beside its parameters."""
    parameters = {"numberResults": task.number_results, **task.parameters}
    return check(task.platform, task.model, parameters, strict=strict)


def models(platform: str) -> tuple[str, ...]:
    """The models of a platform that have rules of their own."""
    return tuple(MODELS.get(platform, ()))


def _no_rules(platform: str, model: str) -> Finding:
    message = (
        f"Check the parameters of {printable(model)} yourself: "
        f"Reelhook has no rules for this model on {printable(platform)} and sends them as they are."
    )
    return Finding(ADVICE.default, "no_rules", "model", message)


def _findings(rules: tuple[Rule, ...], root: Any, *, strict: bool) -> list[Finding]:
    scope = Scope(root, rules, strict=strict)
    return [finding for rule in rules for finding in scope.apply(rule)]


@dataclass(frozen=True, slots=True)
class Scope:
    """The object that rules speak of: the whole request, or one item of a list in it."""

    root: Any
    rules: tuple[Rule, ...]
    prefix: str = ""
    strict: bool = False

    def apply(self, rule: Rule) -> Iterator[Finding]:
        match rule:
            case Kind() | OneOf() | Range() | Length() | Distinct() | Closed():
                name, value = self.find(rule.path)
                if value is not Absent.ABSENT:
                    yield from self.judge_value(rule, name, value)
            case Required() | Together() | Exclusive() | Table() | Renamed():
                yield from self.judge_relation(rule)
            case When():
                if self.holds(rule.condition):
                    for inner in rule.rules:
                        yield from self.apply(inner)
            case Each():
                yield from self.judge_items(rule)
            case Note():
                name, _ = self.find(rule.path)
                yield self.finding(rule.level, rule.code, name, rule.advice, rule.allowed)
            case _:
                assert_never(rule)

    def find(self, path: str) -> tuple[str, Any]:
        """The name a parameter goes by, its former one if need be, and its value."""
        for name in (path, *self.former_names(path)):
            value = dig(self.root, name)
            if value is not Absent.ABSENT:
                return name, value
        return path, Absent.ABSENT

    def former_names(self, path: str) -> Iterator[str]:
        for rule in flat(self.rules):
            if isinstance(rule, Renamed) and rule.new == path:
                yield rule.old

    def given(self, path: str) -> bool:
        value = self.find(path)[1]
        empty = isinstance(value, list | dict) and not value
        return not (value is None or value is Absent.ABSENT or empty)

    def pair(self, names: tuple[str, str]) -> tuple[Any, Any]:
        return self.find(names[0])[1], self.find(names[1])[1]

    def holds(self, condition: Condition) -> bool:
        match condition:
            case Given(path):
                return self.given(path)
            case Is(path, values):
                return within(self.find(path)[1], values)
            case IsKind(path, kind):
                return is_kind(self.find(path)[1], kind)
            case AtLeast(path, count):
                value = self.find(path)[1]
                return isinstance(value, list) and len(value) >= count
            case PairIn(names, pairs):
                return _is_pair(self.pair(names), pairs)
            case Not(inner):
                return not self.holds(inner)
            case AllOf(inners):
                return all(self.holds(inner) for inner in inners)
            case AnyOf(inners):
                return any(self.holds(inner) for inner in inners)
            case _:
                assert_never(condition)

    def judge_value(self, rule: ValueRule, name: str, value: Any) -> Iterator[Finding]:
        match rule:
            case Kind():
                if not any(is_kind(value, kind) for kind in rule.kinds):
                    yield self.wrong_kind(rule.level, name, value, rule.kinds)
            case OneOf():
                yield from self.judge_choice(rule, name, value)
            case Range():
                yield from self.judge_range(rule, name, value)
            case Length():
                yield from self.judge_length(rule, name, value)
            case Distinct():
                yield from self.judge_distinct(rule, name, value)
            case Closed():
                yield from self.judge_names(rule, name, value)
            case _:
                assert_never(rule)

    def judge_choice(self, rule: OneOf, name: str, value: Any) -> Iterator[Finding]:
        if within(value, rule.values):
            return
        choice = _choice(rule.values)
        message = f"Set {self.full(name)} to {choice}; it is {show(value)}."
        if within(value, rule.also):
            yield self.finding(LETTER, "other_spelling", name, message, rule.values)
        else:
            message += guess(value, rule.values)
            yield self.finding(rule.level, "not_allowed", name, message, rule.values)

    def judge_range(self, rule: Range, name: str, value: Any) -> Iterator[Finding]:
        if not is_whole(value):
            yield self.wrong_kind(rule.level, name, value, ("integer",))
        elif value < rule.low or (rule.high is not None and value > rule.high):
            limits = f"at {rule.low} or more"
            if rule.high is not None:
                limits = f"between {rule.low} and {rule.high}"
            message = f"Keep {self.full(name)} {limits}; it is {show(value)}."
            yield self.finding(rule.level, "out_of_range", name, message)

    def judge_length(self, rule: Length, name: str, value: Any) -> Iterator[Finding]:
        if not is_kind(value, rule.of):
            yield self.wrong_kind(rule.level, name, value, (rule.of,))
        elif len(value) < rule.low or (rule.high is not None and len(value) > rule.high):
            unit = "characters" if rule.of == "text" else "items"
            message = f"Give {self.full(name)} {_count(rule)} {unit}; it has {len(value)}."
            yield self.finding(rule.level, rule.code, name, message)

    def judge_distinct(self, rule: Distinct, name: str, value: Any) -> Iterator[Finding]:
        seen: list[tuple[Any, ...]] = []
        for number, item in enumerate(value if isinstance(value, list) else ()):
            said = dig(item, rule.field)
            group = next((group for group in rule.same if within(said, group)), None)
            if group in seen:
                where = f"{name}.{number}.{rule.field}"
                message = f"Change {self.full(where)}: an earlier item has taken {show(said)}."
                yield self.finding(rule.level, rule.code, where, message)
            elif group is not None:
                seen.append(group)

    def judge_names(self, rule: Closed, name: str, value: Any) -> Iterator[Finding]:
        known = self.known_names(rule.path)
        unknown = [key for key in value if key not in known] if isinstance(value, dict) else []
        for key in unknown:
            where = f"{name}.{printable(key)}" if name else printable(key)
            hint = guess(key, known)
            message = f"Check {self.full(where)}: the model's page does not name it.{hint}"
            yield self.finding(rule.level, rule.code, where, message)

    def known_names(self, path: str) -> list[str]:
        """The names right under `path` that any rule of this scope speaks of."""
        start = f"{path}." if path else ""
        spoken = (name for rule in flat(self.rules) for name in paths(rule))
        below = (name.removeprefix(start) for name in spoken if name.startswith(start))
        return sorted({name.partition(".")[0] for name in below} - {""})

    def judge_relation(self, rule: RelationRule) -> Iterator[Finding]:
        match rule:
            case Required(path):
                if self.find(path)[1] is Absent.ABSENT:
                    message = f"Add {self.full(path)}: the request needs it."
                    yield self.finding(rule.level, "missing_parameter", path, message)
            case Together():
                yield from self.judge_together(rule)
            case Exclusive():
                yield from self.judge_exclusive(rule)
            case Table():
                yield from self.judge_table(rule)
            case Renamed():
                yield from self.judge_former_name(rule)
            case _:
                assert_never(rule)

    def judge_together(self, rule: Together) -> Iterator[Finding]:
        absent = [path for path in rule.paths if not self.given(path)]
        if len(absent) == len(rule.paths):
            return
        for path in absent:
            others = " and ".join(self.full(p) for p in rule.paths if p != path)
            message = f"Add {self.full(path)}: it goes together with {others}."
            yield self.finding(rule.level, rule.code, path, message)

    def judge_exclusive(self, rule: Exclusive) -> Iterator[Finding]:
        present = [
            [path for path in group if self.given(path)]
            for group in rule.groups
            if any(self.given(path) for path in group)
        ]
        if len(present) < 2:
            return
        names = either(" and ".join(self.full(p) for p in group) for group in present)
        message = f"Send only {names}, not both. {rule.hint}".rstrip()
        yield self.finding(rule.level, rule.code, self.find(present[-1][0])[0], message)

    def judge_table(self, rule: Table) -> Iterator[Finding]:
        pair = self.pair(rule.paths)
        numbers = [
            self.wrong_kind(rule.level, path, value, ("integer",))
            for path, value in zip(rule.paths, pair, strict=True)
            if value is not Absent.ABSENT and not is_whole(value)
        ]
        yield from numbers
        if numbers or Absent.ABSENT in pair or _is_pair(pair, rule.pairs):
            return
        near = _size(_nearest(pair, rule.pairs))
        names = " and ".join(self.full(path) for path in rule.paths)
        message = f"Set {names} to a size the model has, such as {near}; it is {_size(pair)}."
        allowed = tuple(_size(each) for each in rule.pairs)
        yield self.finding(rule.level, rule.code, rule.paths[0], message, allowed)

    def judge_former_name(self, rule: Renamed) -> Iterator[Finding]:
        if dig(self.root, rule.old) is Absent.ABSENT:
            return
        old = self.full(rule.old)
        message = f"Leave out {old}: the model's page no longer has it."
        if rule.new is not None:
            message = f"Write {self.full(rule.new)} instead of {old}, its former name."
        yield self.finding(rule.level, "legacy_name", rule.old, message)

    def judge_items(self, rule: Each) -> Iterator[Finding]:
        name, value = self.find(rule.path)
        for number, item in enumerate(value if isinstance(value, list) else ()):
            prefix = f"{self.full(name)}.{number}"
            scope = Scope(item, rule.rules, prefix, self.strict)
            for inner in rule.rules:
                yield from scope.apply(inner)

    def full(self, name: str) -> str:
        return ".".join(part for part in (self.prefix, name) if part)

    def finding(
        self,
        level: Level,
        code: str,
        name: str,
        message: str,
        allowed: tuple[Any, ...] | None = None,
    ) -> Finding:
        severity = level.strict if self.strict else level.default
        return Finding(severity, code, self.full(name), message, allowed)

    def wrong_kind(
        self, level: Level, name: str, value: Any, kinds: tuple[JsonKind, ...]
    ) -> Finding:
        wanted = either(KIND_NAMES[kind] for kind in kinds)
        subject = self.full(name) or "the request"
        message = f"Send {subject} as {wanted}; it is {show(value)}."
        return self.finding(level, "invalid_type", name, message)


def _choice(values: tuple[Any, ...]) -> str:
    # The long lists are in `allowed`.
    return either(values) if len(values) <= 8 else f"one of its {len(values)} values"


def _count(rule: Length) -> str:
    if rule.high is None:
        return f"at least {rule.low}"
    return f"{rule.low} to {rule.high}" if rule.low else f"at most {rule.high}"


def _is_pair(pair: tuple[Any, Any], pairs: tuple[tuple[int, int], ...]) -> bool:
    return any(same(pair[0], first) and same(pair[1], second) for first, second in pairs)


def _nearest(pair: tuple[Any, Any], pairs: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    # int() first: a float and a huge integer cannot be subtracted.
    width, height = int(pair[0]), int(pair[1])
    return min(pairs, key=lambda each: abs(each[0] - width) + abs(each[1] - height))


def _size(pair: tuple[Any, Any]) -> str:
    return f"{show(pair[0])}x{show(pair[1])}"
