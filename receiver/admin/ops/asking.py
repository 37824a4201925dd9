"""Floor 3, flows: who asks, and what every use case works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from receiver.clock import Clock, from_datetime, within_reason
from receiver.delivery.guard import HostRefused
from receiver.errors import Forbidden, Invalid, NotFound
from receiver.store.protocol import Query, Store
from receiver.tokens import DEFAULT_PROJECT


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `project` None: all of them."""

    name: str
    project: str | None = None

    def see(self, project: str) -> None:
        """Raises NotFound for another project's things: no oracle of what exists there."""
        if self.project is not None and project != self.project:
            raise NotFound("There is nothing by that id.")

    def choose(self, asked: str | None) -> str:
        """The project of something new. Raises Forbidden."""
        if self.project is not None and asked not in (None, self.project):
            raise Forbidden(f"This token belongs to the project {self.project!r}.")
        return asked or self.project or DEFAULT_PROJECT

    def within(self, query: Query) -> Query:
        """The query, narrowed to what this principal may see."""
        if self.project is None:
            return query
        if query.project not in (None, self.project):
            raise Forbidden(f"This token belongs to the project {self.project!r}.")
        return replace(query, project=self.project)


def moment(given: datetime | None, name: str) -> int | None:
    """A given time in milliseconds. Raises Invalid for one that no clock can mean."""
    if given is None:
        return None
    try:
        return within_reason(from_datetime(given))
    except (ValueError, OverflowError):
        raise Invalid(f"{name} is not a time from 1970 to 2200.", parameter=name) from None


class ChecksUrls(Protocol):
    """Refuses URLs that deliveries could never or must never reach."""

    def check_url(self, url: str) -> None: ...


class Desk:
    """Where use cases are done. `random_bytes(n)` gives entropy, `guard` vets endpoints' URLs."""

    def __init__(
        self,
        store: Store,
        *,
        guard: ChecksUrls,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.store = store
        self._guard = guard
        self._clock = clock
        self._random = random_bytes

    def _check_url(self, who: Principal, url: str) -> None:
        """Raises UrlRefused, to a project without what it says of the network behind us."""
        try:
            self._guard.check_url(url)
        except HostRefused:
            if who.project is None:
                raise
            raise HostRefused(
                "This host can't be delivered to; ask whoever runs the receiver."
            ) from None
