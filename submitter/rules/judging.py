"""Rules about one value: each yields what it has to say (floor 1, pure)."""

from collections.abc import Iterator
from typing import Any, assert_never

from submitter.rules.kinds import (
    ADVICE,
    LETTER,
    Absent,
    Closed,
    Compared,
    Distinct,
    Factor,
    Form,
    Kind,
    Length,
    Media,
    Multiple,
    OneOf,
    Pattern,
    Range,
    ValueRule,
)
from submitter.rules.media import formats, is_media_type
from submitter.rules.scope import Scope
from submitter.rules.values import (
    bytes_of,
    dig,
    either,
    form_of,
    guess,
    is_kind,
    matches,
    media_type,
    printable,
    product,
    show,
    within,
)
from submitter.tasks import Finding

FORM_NAMES: dict[Form, str] = {
    "uuid": "a UUID",
    "url": "an http or https URL",
    "data": "a data URI (data:…;base64,…)",
    "base64": "base64",
}


def judge(scope: Scope, rule: ValueRule, name: str, value: Any) -> Iterator[Finding]:
    """What the rule says about a value that is there."""
    match rule:
        case Kind():
            if not any(is_kind(value, kind) for kind in rule.kinds):
                yield from scope.wrong_kind(name, value, rule.kinds, rule.level)
        case OneOf():
            yield from _choice(scope, rule, name, value)
        case Range() | Multiple() | Compared():
            yield from _number(scope, rule, name, value)
        case Pattern() | Media() | Length():
            yield from _text(scope, rule, name, value)
        case Distinct():
            yield from _distinct(scope, rule, name, value)
        case Closed():
            yield from _names(scope, rule, name, value)
        case _:
            assert_never(rule)


def _number(
    scope: Scope, rule: Range | Multiple | Compared, name: str, value: Any
) -> Iterator[Finding]:
    match rule:
        case Range():
            yield from _range(scope, rule, name, value)
        case Multiple():
            yield from _multiple(scope, rule, name, value)
        case Compared():
            yield from _compared(scope, rule, name, value)
        case _:
            assert_never(rule)


def _text(scope: Scope, rule: Pattern | Media | Length, name: str, value: Any) -> Iterator[Finding]:
    match rule:
        case Pattern():
            yield from _pattern(scope, rule, name, value)
        case Media():
            yield from _media(scope, rule, name, value)
        case Length():
            yield from _length(scope, rule, name, value)
        case _:
            assert_never(rule)


def _choice(scope: Scope, rule: OneOf, name: str, value: Any) -> Iterator[Finding]:
    if rule.of is not None and not is_kind(value, rule.of):
        yield from scope.wrong_kind(name, value, (rule.of,))
        return
    if within(value, rule.values):
        return
    # The long lists are in `allowed`.
    count = len(rule.values)
    choice = either(rule.values) if count <= 8 else f"one of its {count} values"
    message = f"Set {scope.full(name)} to {choice}; it is {show(value)}."
    if within(value, rule.also):
        yield from scope.finding(LETTER, "other_spelling", name, message, rule.values)
    else:
        message += guess(value, rule.values)
        yield from scope.finding(rule.level, "not_allowed", name, message, rule.values)


def _range(scope: Scope, rule: Range, name: str, value: Any) -> Iterator[Finding]:
    if not is_kind(value, rule.of):
        yield from scope.wrong_kind(name, value, (rule.of,))
    elif value < rule.low or (rule.high is not None and value > rule.high):
        limits = f"at {rule.low} or more"
        if rule.high is not None:
            limits = f"between {rule.low} and {rule.high}"
        message = f"Keep {scope.full(name)} {limits}; it is {show(value)}."
        yield from scope.finding(rule.level, "out_of_range", name, message)


def _multiple(scope: Scope, rule: Multiple, name: str, value: Any) -> Iterator[Finding]:
    if is_kind(value, "integer") and value % rule.of:
        near = max(int(value) // rule.of, 1) * rule.of
        message = (
            f"Set {scope.full(name)} to a multiple of {rule.of}, such as {show(near)};"
            f" it is {show(value)}."
        )
        yield from scope.finding(rule.level, "not_a_multiple", name, message)


def _compared(scope: Scope, rule: Compared, name: str, value: Any) -> Iterator[Finding]:
    limit = product(_factor(scope, factor) for factor in rule.factors)
    if limit is None or not is_kind(value, "number"):
        return
    right = {"at most": value <= limit, "more than": value > limit, "less than": value < limit}
    if not right[rule.how]:
        others = " × ".join(factor.path for factor in rule.factors)
        message = (
            f"Keep {scope.full(name)} {rule.how} {others}, which is {show(limit)};"
            f" it is {show(value)}."
        )
        yield from scope.finding(rule.level, "out_of_range", name, message)


def _factor(scope: Scope, factor: Factor) -> Any:
    found = dig(scope.request, factor.path)
    return factor.default if found is Absent.ABSENT else found


def _pattern(scope: Scope, rule: Pattern, name: str, value: Any) -> Iterator[Finding]:
    if not is_kind(value, "text"):
        yield from scope.wrong_kind(name, value, ("text",))
    elif not matches(rule.pattern, value):
        message = f"Write {scope.full(name)} as {rule.wanted}; it is {show(value)}."
        yield from scope.finding(rule.level, "bad_format", name, message)


def _media(scope: Scope, rule: Media, name: str, value: Any) -> Iterator[Finding]:
    if not is_kind(value, "text"):
        yield from scope.wrong_kind(name, value, ("text",))
        return
    full, form = scope.full(name), form_of(value)
    if not value:
        yield from scope.finding(
            rule.level, "bad_length", name, f"Give {full} a value: it is empty."
        )
    elif form not in rule.forms:
        wanted = either(FORM_NAMES[form] for form in rule.forms)
        message = f"Send {full} as {wanted}; it is {show(value)}. A local file is key=@file."
        yield from scope.finding(rule.level, "bad_media", name, message)
    elif form == "data" and not is_media_type(media_type(value), rule.sort):
        names = formats(rule.sort)
        message = f"Send {full} as {either(names)}; it is {show(media_type(value))}."
        yield from scope.finding(LETTER, "unsupported_media", name, message, names)
    elif form in ("data", "base64") and rule.most is not None and bytes_of(value) > rule.most:
        most = f"{rule.most // 1_000_000} MB"
        message = f"Send {full} as a URL: inline it may have {most} at the most."
        yield from scope.finding(ADVICE, "large_media", name, message)


def _length(scope: Scope, rule: Length, name: str, value: Any) -> Iterator[Finding]:
    if not is_kind(value, rule.of):
        yield from scope.wrong_kind(name, value, (rule.of,))
    elif len(value) < rule.low or (rule.high is not None and len(value) > rule.high):
        unit = "characters" if rule.of == "text" else "items"
        message = f"Give {scope.full(name)} {_count(rule)} {unit}; it has {len(value)}."
        yield from scope.finding(rule.level, rule.code, name, message)


def _count(rule: Length) -> str:
    if rule.high is None:
        return f"at least {rule.low}"
    return f"{rule.low} to {rule.high}" if rule.low else f"at most {rule.high}"


def _distinct(scope: Scope, rule: Distinct, name: str, value: Any) -> Iterator[Finding]:
    seen: list[tuple[Any, ...]] = []
    for number, item in enumerate(value if isinstance(value, list | tuple) else ()):
        said = dig(item, rule.field)
        group = next((group for group in rule.same if within(said, group)), None)
        if group in seen:
            where = f"{name}.{number}.{rule.field}"
            message = f"Change {scope.full(where)}: an earlier item has taken {show(said)}."
            yield from scope.finding(rule.level, rule.code, where, message)
        elif group is not None:
            seen.append(group)


def _names(scope: Scope, rule: Closed, name: str, value: Any) -> Iterator[Finding]:
    known = scope.known_names(rule.path)
    unknown = [key for key in value if key not in known] if isinstance(value, dict) else []
    for key in unknown:
        where = f"{name}.{printable(key)}" if name else printable(key)
        message = f"Check {scope.full(where)}: {rule.page} does not name it.{guess(key, known)}"
        yield from scope.finding(rule.level, rule.code, where, message)
