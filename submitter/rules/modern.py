"""Former names and spellings, written as they are sent today (floor 1, pure)."""

from collections.abc import Iterator, Mapping
from typing import Any

from submitter.rules.catalogue import rules_for, rules_for_any_model
from submitter.rules.kinds import Absent, Each, OneOf, Renamed, Rule, When
from submitter.rules.scope import Scope
from submitter.rules.values import dig, within


def modern(platform: str, model: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters in the names and spellings that are sent; a new dict, values untouched.

    `frameImages` becomes `inputs.frameImages`, `inputImage` becomes `image`, `mp4` becomes `MP4`.
    Where the new name is there too, and where the page dropped a name, all stays as it is: `check`
    says so. Use it on what `check` has seen, so that the findings speak of the user's names.
    """
    found = rules_for(platform, model) or rules_for_any_model(platform)
    named = {"model": model, **parameters}
    rewritten: dict[str, Any] = _modern(found.rules if found else (), named)
    if "model" not in parameters:
        del rewritten["model"]
    return rewritten


def _modern(rules: tuple[Rule, ...], root: Any) -> Any:
    # Names first, so that the rest finds everything in its place.
    for rule in _that_hold(rules, root):
        if isinstance(rule, Renamed) and rule.new is not None:
            root = _moved(root, rule.old, rule.new)
    for rule in _that_hold(rules, root):
        if isinstance(rule, OneOf | Each):
            found = dig(root, rule.path)
            written = _spelled(rule, found) if isinstance(rule, OneOf) else _items(rule, found)
            root = root if written is found else _changed(root, rule.path, written)
    return root


def _that_hold(rules: tuple[Rule, ...], root: Any) -> tuple[Rule, ...]:
    """The rules, and those under conditions that hold."""
    scope = Scope(root, rules, root)

    def spread(rules: tuple[Rule, ...]) -> Iterator[Rule]:
        for rule in rules:
            if not isinstance(rule, When):
                yield rule
            elif scope.holds(rule.condition):
                yield from spread(rule.rules)

    return tuple(spread(rules))


def _items(rule: Each, value: Any) -> Any:
    return (
        [_modern(rule.rules, item) for item in value] if isinstance(value, list | tuple) else value
    )


def _moved(root: Any, old: str, new: str) -> Any:
    value = dig(root, old)
    if value is Absent.ABSENT or dig(root, new) is not Absent.ABSENT:
        return root
    changed = _changed(root, new, value)
    return root if changed is root else _changed(changed, old, Absent.ABSENT)


def _spelled(rule: OneOf, value: Any) -> Any:
    if not within(value, rule.also):
        return value
    return next((each for each in rule.values if str(each).lower() == str(value).lower()), value)


def _changed(root: Any, path: str, value: Any) -> Any:
    """A copy with the value at the path, made on the way; the same object if it has no place."""
    name, _, rest = path.partition(".")
    if not isinstance(root, dict):
        return root
    if rest:
        inner = root.get(name, {})
        value = _changed(inner, rest, value)
        if value is inner:
            return root
    elif value is Absent.ABSENT:
        return {key: each for key, each in root.items() if key != name}
    return {**root, name: value}
