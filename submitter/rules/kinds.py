"""The kinds of parameter rules (floor 1, pure): a model's page is written with these words only.

A rule is silent while its parameter is absent, save for `Required`, `Together` and `When`.
Paths are dotted; inside `Each` they start at the item, and the empty path is the item itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypeAlias

from submitter.tasks import Severity

JsonKind: TypeAlias = Literal["text", "integer", "boolean", "object", "list", "uuid", "url"]


class Absent(Enum):
    """The value of a parameter that is not there; null is there."""

    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Level:
    """How a breach counts, in the default mode and in strict mode."""

    default: Severity
    strict: Severity


ERROR = Level("error", "error")
ADVICE = Level("warning", "warning")
# The page forbids it, the platform was seen to take it.
LETTER = Level("warning", "error")


@dataclass(frozen=True, slots=True)
class Given:
    """The parameter is there and is neither null nor an empty list or object."""

    path: str


@dataclass(frozen=True, slots=True)
class Is:
    """The parameter has one of the values."""

    path: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class IsKind:
    """The parameter is of a JSON kind."""

    path: str
    kind: JsonKind


@dataclass(frozen=True, slots=True)
class AtLeast:
    """The parameter is a list with so many items."""

    path: str
    count: int


@dataclass(frozen=True, slots=True)
class PairIn:
    """The two parameters together are one of the pairs."""

    paths: tuple[str, str]
    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Not:
    condition: "Condition"


@dataclass(frozen=True, slots=True)
class AllOf:
    conditions: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    conditions: tuple["Condition", ...]


Condition: TypeAlias = Given | Is | IsKind | AtLeast | PairIn | Not | AllOf | AnyOf


@dataclass(frozen=True, slots=True)
class Kind:
    """The value is of one of the JSON kinds."""

    path: str
    kinds: tuple[JsonKind, ...]
    level: Level = ERROR


@dataclass(frozen=True, slots=True)
class OneOf:
    """The value is one of `values`, or, spelled otherwise than on the page, of `also`."""

    path: str
    values: tuple[Any, ...]
    also: tuple[Any, ...] = ()
    level: Level = ERROR


@dataclass(frozen=True, slots=True)
class Range:
    """The value is a whole number from `low` to `high`, both included."""

    path: str
    low: int
    high: int | None = None
    level: Level = ERROR


@dataclass(frozen=True, slots=True)
class Length:
    """The text or list is so long, in characters or items."""

    path: str
    low: int
    high: int | None = None
    of: Literal["text", "list"] = "text"
    code: str = "bad_length"
    level: Level = ERROR


@dataclass(frozen=True, slots=True)
class Distinct:
    """No two items say the same in `field`; `same` groups what means the same."""

    path: str
    field: str
    same: tuple[tuple[Any, ...], ...]
    code: str
    level: Level = ERROR


@dataclass(frozen=True, slots=True)
class Closed:
    """The object has no names but those that the rules beside this one speak of."""

    path: str
    code: str = "unknown_parameter"
    level: Level = LETTER


@dataclass(frozen=True, slots=True)
class Required:
    """The parameter is there."""

    path: str
    level: Level = ERROR


@dataclass(frozen=True, slots=True)
class Together:
    """All of the parameters are given, or none."""

    paths: tuple[str, ...]
    code: str
    level: Level = ERROR


@dataclass(frozen=True, slots=True)
class Exclusive:
    """At most one of the groups is given; the finding names the first of the last group."""

    groups: tuple[tuple[str, ...], ...]
    code: str
    hint: str = ""
    level: Level = ERROR


@dataclass(frozen=True, slots=True)
class Table:
    """The two parameters together are one of the pairs."""

    paths: tuple[str, str]
    pairs: tuple[tuple[int, int], ...]
    code: str
    level: Level = ERROR


@dataclass(frozen=True, slots=True)
class Renamed:
    """`old` once was the name of `new`, and is read in its place; or the page dropped it."""

    old: str
    new: str | None
    level: Level = LETTER


@dataclass(frozen=True, slots=True)
class Note:
    """Says its advice; stands inside a `When`."""

    path: str
    code: str
    advice: str
    allowed: tuple[Any, ...] | None = None
    level: Level = ERROR


@dataclass(frozen=True, slots=True)
class When:
    """The rules hold under a condition."""

    condition: Condition
    rules: tuple["Rule", ...]


@dataclass(frozen=True, slots=True)
class Each:
    """The rules hold for every item of a list."""

    path: str
    rules: tuple["Rule", ...]


ValueRule: TypeAlias = Kind | OneOf | Range | Length | Distinct | Closed
RelationRule: TypeAlias = Required | Together | Exclusive | Table | Renamed
OuterRule: TypeAlias = Note | When | Each
Rule: TypeAlias = ValueRule | RelationRule | OuterRule


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All rules of one model."""

    name: str
    rules: tuple[Rule, ...]


def flat(rules: tuple[Rule, ...]) -> Iterator[Rule]:
    """The rules and those under their conditions, but not those of list items."""
    for rule in rules:
        yield rule
        if isinstance(rule, When):
            yield from flat(rule.rules)


def paths(rule: Rule) -> tuple[str, ...]:
    """The parameters a rule speaks of."""
    match rule:
        case Together() | Table():
            return rule.paths
        case Exclusive():
            return tuple(path for group in rule.groups for path in group)
        case Renamed():
            return (rule.old,)
        case When():
            return ()
        case _:
            return (rule.path,)
