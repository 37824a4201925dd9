"""Floor 4, doors: the dashboard's first page: does it run, and does anything want a person.

Starlette only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from starlette.responses import Response

from receiver.admin.dashboard.pages import PageRow, Visit
from receiver.admin.dashboard.wording import counted
from receiver.admin.ops import Ops, Query
from receiver.figures import Figure, Overview

LATEST: Final = 8


class Concern(NamedTuple):
    """Something that wants a person: how bad it is, what it is, and where it is seen to."""

    state: str
    text: str
    href: str


class OverviewPages:
    """What an operator looks at first."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[PageRow]:
        """Its pages."""
        return (PageRow("GET", "/", self._overview, "/v1/overview"),)

    async def _overview(self, visit: Visit) -> Response:
        overview = await self._ops.overview(visit.who, visit.query)
        latest = Query(limit=LATEST, project=overview.project)
        return visit.show(
            "overview.html",
            overview=overview,
            concerns=[*_concerns(overview)],
            refused=_refused(overview),
            tasks=(await self._ops.tasks(visit.who, latest)).data,
            callbacks=(await self._ops.callbacks(visit.who, latest)).data,
        )


def _refused(overview: Overview) -> int:
    """How many requests the door has refused for their credential since it opened."""
    answers = overview.answers.outcomes if overview.answers else {}
    return sum(count for outcome, count in answers.items() if outcome.startswith("token_"))


def _concerns(overview: Overview) -> Iterator[Concern]:
    """What is wrong at present, the worst first."""
    now, ends = overview.attention, overview.endpoints
    found = (
        ("dead", now.dead, "dead letter", "/dead-letters"),
        (
            "quarantined",
            now.quarantined,
            "callback in quarantine",
            "/callbacks?outcome=quarantined",
        ),
        ("disabled", _exactly(ends.disabled), "disabled endpoint", "/endpoints"),
        ("open", _exactly(ends.failing), "failing endpoint", "/endpoints"),
        ("overdue", overview.tasks.overdue, "overdue task", "/tasks?overdue=true"),
        (
            "conflict",
            now.conflict,
            "callback that contradicts another",
            "/callbacks?outcome=conflict",
        ),
        ("paused", _exactly(ends.paused), "paused endpoint", "/endpoints"),
    )
    for state, figure, one, href in found:
        if figure.count:
            yield Concern(state, _told(figure, one), href)


def _exactly(count: int) -> Figure:
    return Figure(count=count, complete=True)


def _told(figure: Figure, one: str) -> str:
    many = one.replace("callback ", "callbacks ").replace(" contradicts ", " contradict ")
    text = counted(figure.count, one, many if many != one else None)
    return text if figure.complete else f"more than {text}"
