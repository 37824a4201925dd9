"""The kinds of parameter rules (floor 1, pure): a model's page is written with these words only.

A rule is silent while its parameter is absent, save for `Required`, `Together` and `When`.
Paths are dotted; inside `Each` they start at the item, and the empty path is the item itself.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, TypeAlias

from submitter.rules.media import Sort
from submitter.tasks import Severity

JsonKind: TypeAlias = Literal[
    "text", "integer", "number", "boolean", "object", "list", "uuid", "url"
]


# How a media input may be written.
Form: TypeAlias = Literal["uuid", "url", "data", "base64"]


class Absent(Enum):
    """The value of a parameter that is not there; null is there."""

    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Level:
    """How a breach counts, in the default mode and in strict mode; None is not said at all."""

    default: Severity | None
    strict: Severity | None


ERROR = Level("error", "error")
ADVICE = Level("warning", "warning")
# The page forbids it, the platform was seen to take it.
LETTER = Level("warning", "error")
# The page forbids it, and its own examples or newer models do it so often that a warning is noise.
QUIET = Level(None, "error")
# Another spelling that nobody minds.
SILENT = Level(None, None)


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
class Matches:
    """The parameter is a text that a regular expression matches as a whole."""

    path: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Not:
    condition: "Condition"


@dataclass(frozen=True, slots=True)
class AllOf:
    conditions: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    conditions: tuple["Condition", ...]


Condition: TypeAlias = Given | Is | IsKind | AtLeast | PairIn | Matches | Not | AllOf | AnyOf


@dataclass(frozen=True, slots=True)
class Kind:
    """The value is of one of the JSON kinds."""

    path: str
    kinds: tuple[JsonKind, ...]
    level: Level = ERROR


@dataclass(frozen=True, slots=True)
class OneOf:
    """The value is one of `values`, or, spelled otherwise than on the page, of `also`.

    `of`: another kind of value is of a wrong kind, whatever the level.
    """

    path: str
    values: tuple[Any, ...]
    also: tuple[Any, ...] = ()
    of: JsonKind | None = None
    level: Level = ERROR


@dataclass(frozen=True, slots=True)
class Range:
    """The value is a number from `low` to `high`, both included."""

    path: str
    low: int | float
    high: int | float | None = None
    of: Literal["integer", "number"] = "integer"
    level: Level = ERROR


@dataclass(frozen=True, slots=True)
class Multiple:
    """The whole number can be divided by `of`."""

    path: str
    of: int
    level: Level = ERROR


@dataclass(frozen=True, slots=True)
class Factor:
    """Another parameter, by its path from the request, and what it is when it is not there."""

    path: str
    default: int | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """The number is at most, more than, or less than the product of other parameters."""

    path: str
    how: Literal["at most", "more than", "less than"]
    factors: tuple[Factor, ...]
    level: Level = ERROR


@dataclass(frozen=True, slots=True)
class Pattern:
    """The text is matched as a whole by a regular expression; `wanted` says it in words."""

    path: str
    pattern: str
    wanted: str
    level: Level = ERROR


@dataclass(frozen=True, slots=True)
class Media:
    """The text stands for an image, a video or a sound, in one of the forms; `most` bytes inline.

    Only its beginning is looked at.
    """

    path: str
    sort: Sort
    forms: tuple[Form, ...] = ("uuid", "url", "data", "base64")
    most: int | None = None
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
    page: str = "the model's page"
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


ValueRule: TypeAlias = (
    Kind | OneOf | Range | Multiple | Compared | Pattern | Media | Length | Distinct | Closed
)
RelationRule: TypeAlias = Required | Together | Exclusive | Table | Renamed
OuterRule: TypeAlias = Note | When | Each
Rule: TypeAlias = ValueRule | RelationRule | OuterRule


@dataclass(frozen=True, slots=True)
class Page:
    """A platform's page, and where on it each parameter is explained.

    The anchor of a parameter follows from its path, in small letters; `named` has the exceptions,
    and `without` the paths that the page does not explain.
    """

    url: str
    named: Mapping[str, str] = field(default_factory=dict)
    without: frozenset[str] = frozenset()

    def anchor(self, path: str) -> str | None:
        """Such as `request-safety-mode` for safety.mode; None if the page has none."""
        if path in self.without:
            return None
        return self.named.get(path, f"request-{path.lower().replace('.', '-')}")


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All rules of one model, and the page that they are from, if we have it."""

    name: str
    rules: tuple[Rule, ...]
    page: Page | None = None


def flat(rules: tuple[Rule, ...]) -> Iterator[Rule]:
    """The rules and those under their conditions, but not those of list items."""
    for rule in rules:
        yield rule
        if isinstance(rule, When):
            yield from flat(rule.rules)


def spoken(rules: tuple[Rule, ...], prefix: str = "") -> Iterator[str]:
    """Every parameter that the rules speak of, those of list items under the list's name."""
    for rule in flat(rules):
        yield from (".".join(filter(None, (prefix, path))) for path in paths(rule))
        if isinstance(rule, Each):
            yield from spoken(rule.rules, ".".join(filter(None, (prefix, rule.path))))


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
