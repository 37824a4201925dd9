"""Floor 0, nouns: what tasks cost, as platforms reported it, in sums. Pure.

Nothing is computed from prices: a result whose platform named no cost is counted as such, so that a
sum which lacks something says so (docs/http-api.md, "Costs").
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from pydantic import BaseModel

from receiver.errors import Invalid


class By(StrEnum):
    """By what costs may be grouped."""

    TASK = "task"
    MODEL = "model"
    DAY = "day"  # in UTC, on which a result came
    TAG = "tag"  # written tag:NAME
    PROJECT = "project"
    PLATFORM = "platform"


@dataclass(frozen=True, slots=True)
class Grouping:
    """By what costs are grouped; `tag` is the tag's name, "" unless it is by one."""

    by: By
    tag: str = ""

    @classmethod
    def read(cls, text: str) -> Self:
        """`model`, `day`, `tag:projectId`, … Raises Invalid with what may be written."""
        word, colon, tag = text.partition(":")
        is_tag = word == By.TAG
        if word not in [*By] or is_tag != bool(colon) or is_tag != bool(tag) or '"' in tag:
            known = ", ".join(f"{by}:NAME" if by is By.TAG else by for by in By)
            raise Invalid(f"by must be one of {known}.", parameter="by")
        return cls(By(word), tag)


class CostSum(BaseModel):
    """What some results cost. `cost` in dollars, None when no platform reported any.

    `results` are distinct and count what never came too, but nothing twice; of them `failed` are
    failures and `without_cost` came without a cost. `tasks` are those that the results belong to.
    """

    cost: float | None
    results: int
    failed: int
    without_cost: int
    tasks: int


class Cost(CostSum):
    """The sum of one group; `value` is None where there is none, such as no tag of that name."""

    value: str | None
