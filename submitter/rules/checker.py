"""The one reader of the rules (floor 1, pure). It knows kinds of rules, never a model."""

from collections.abc import Iterator
from typing import Any, assert_never

from submitter.rules.catalogue import MODELS, rules_for, rules_for_any_model
from submitter.rules.judging import judge
from submitter.rules.kinds import (
    Absent,
    Closed,
    Compared,
    Distinct,
    Each,
    Exclusive,
    Kind,
    Length,
    Media,
    Multiple,
    Note,
    OneOf,
    Pattern,
    Range,
    Renamed,
    Required,
    Rule,
    Table,
    Together,
    When,
)
from submitter.rules.relations import relate
from submitter.rules.scope import Scope
from submitter.rules.values import printable
from submitter.tasks import Finding, GenerationTask


def check(
    platform: str, model: str, parameters: dict[str, Any], *, strict: bool = False
) -> list[Finding]:
    """What the rules have to say about a request, in their order. Changes nothing.

    Local files have to be encoded before (`submitter.media.inline`).
    """
    if model and isinstance(parameters, dict):
        parameters = {"model": model, **parameters}
    known = rules_for(platform, model)
    if known is not None:
        return _findings(known.rules, parameters, strict=strict)
    general = rules_for_any_model(platform)
    found = () if general is None else _findings(general.rules, parameters, strict=strict)
    return [_no_rules(platform, model), *found]


def check_task(task: GenerationTask, *, strict: bool = False) -> list[Finding]:
    """`check` for a task, whose number of results stands beside its parameters."""
    parameters = {"numberResults": task.number_results, **task.parameters}
    return check(task.platform, task.model, parameters, strict=strict)


def models(platform: str) -> tuple[str, ...]:
    """The models of a platform that have rules of their own."""
    return tuple(MODELS.get(platform, ()))


def _no_rules(platform: str, model: str) -> Finding:
    subject = printable(model) if model else "a request without a model"
    message = (
        f"Check the parameters of {subject} yourself: "
        f"Reelhook has no rules for this model on {printable(platform)} and sends them as they are."
    )
    return Finding("warning", "no_rules", "model", message)


def _findings(rules: tuple[Rule, ...], root: Any, *, strict: bool) -> list[Finding]:
    scope = Scope(root, rules, root, strict=strict)
    first: dict[tuple[str, str], Finding] = {}
    for rule in rules:
        for finding in _apply(scope, rule):
            # The platform's limit and the page's narrower one say the same; the graver is first.
            first.setdefault((finding.code, finding.parameter), finding)
    return list(first.values())


def _apply(scope: Scope, rule: Rule) -> Iterator[Finding]:
    match rule:
        case (
            Kind()
            | OneOf()
            | Range()
            | Multiple()
            | Compared()
            | Pattern()
            | Media()
            | Length()
            | Distinct()
            | Closed()
        ):
            name, value = scope.find(rule.path)
            if value is not Absent.ABSENT:
                yield from judge(scope, rule, name, value)
        case Required() | Together() | Exclusive() | Table() | Renamed():
            yield from relate(scope, rule)
        case When():
            if scope.holds(rule.condition):
                for inner in rule.rules:
                    yield from _apply(scope, inner)
        case Each():
            yield from _items(scope, rule)
        case Note():
            name, _ = scope.find(rule.path)
            yield from scope.finding(rule.level, rule.code, name, rule.advice, rule.allowed)
        case _:
            assert_never(rule)


def _items(scope: Scope, rule: Each) -> Iterator[Finding]:
    name, value = scope.find(rule.path)
    for number, item in enumerate(value if isinstance(value, list | tuple) else ()):
        prefix = f"{scope.full(name)}.{number}"
        inner = Scope(item, rule.rules, scope.request, prefix, scope.strict)
        for each in rule.rules:
            yield from _apply(inner, each)
