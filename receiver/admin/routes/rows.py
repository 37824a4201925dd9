"""Floor 4, doors: a row of the route table, which says all of a route. Starlette and pydantic only.

The routes, who may use them, their description (`receiver.admin.openapi`) and the tests read these.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from receiver.access import Scope
from receiver.admin.ops import Principal

T = TypeVar("T", bound=BaseModel)

Handler = Callable[[Principal, Request], Awaitable[Response]]
# What an answer's body is: a model's JSON, a media type that no model describes, or nothing; or one
# of several, as the request asks.
Body = type[BaseModel] | str | None
Answer = Body | tuple[Body, ...]

HTML: Final = "text/html"

ONCE: Final = "idempotency-key"
ROW: Final = "reelhook.row"  # where a request's scope has the row that it came to


class Listed(BaseModel, Generic[T]):
    """A page of a list, newest first; `next_cursor` is the `cursor` of the next one."""

    data: list[T]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Row:
    """One method of one path. `scopes` are those that may; any problem may be answered besides.

    `query` and `headers` name the parameters, divided by spaces; what each of them is, says
    `receiver.admin.routes.parameters`. A list (its answer is `Listed`) has `limit` and `cursor`
    too.
    """

    method: str
    path: str
    handler: Handler
    scopes: Set[Scope]
    summary: str
    query: str = ""
    headers: str = ""
    body: type[BaseModel] | None = None
    answers: Mapping[int, Answer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # What a POST does, it can be asked to do once (`receiver.admin.routes.once`).
        if self.method == "POST":
            object.__setattr__(self, "headers", f"{self.headers} {ONCE}".strip())

    @property
    def is_list(self) -> bool:
        """Whether a page is answered."""
        return any(isinstance(kind, type) and issubclass(kind, Listed) for kind in self.bodies(200))

    def bodies(self, status: int) -> Sequence[Body]:
        """What may be in an answer of this status."""
        kind = self.answers.get(status)
        return kind if isinstance(kind, tuple) else (kind,)

    @property
    def parameters(self) -> list[str]:
        """The names of all query parameters, sorted."""
        return sorted([*self.query.split(), *(("limit", "cursor") if self.is_list else ())])


def row_of(request: Request) -> Row:
    """The row that a request came to."""
    row = request.scope[ROW]
    assert isinstance(row, Row)  # noqa: S101 - the guard before every handler puts it there
    return row
