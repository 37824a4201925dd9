"""Floor 3, flows: who asks, and what every use case works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Protocol

from receiver.access import Action, Deed, OnceKey, Scope
from receiver.clock import Clock, from_datetime, within_reason
from receiver.delivery.guard import HostRefused
from receiver.errors import Forbidden, Invalid, NotFound
from receiver.sessions import Session
from receiver.store.protocol import Query, Store
from receiver.tokens import DEFAULT_PROJECT


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, by which request, and from where. `project` None: all of them.

    `name` is what the log and the audit rows say, `title` what people call it; a browser has a
    `session`.
    """

    name: str
    project: str | None = None
    scope: Scope = Scope.ADMIN
    title: str = ""
    request_id: str | None = None
    key: str | None = None  # the request's Idempotency-Key
    remote: str | None = None  # the address that the request came from
    session: Session | None = None

    @property
    def once(self) -> OnceKey | None:
        """The request that must not do anything twice."""
        return None if self.key is None else OnceKey(self.name, self.key)

    def allow(self, scopes: Set[Scope]) -> None:
        """Raises Forbidden for who has none of them."""
        if self.scope not in scopes:
            needed = sorted(scopes)
            raise Forbidden(
                f"This token has the scope {self.scope}; what you ask for needs"
                f" {' or '.join(needed)}.",
                scopes=needed,
            )

    def of_all(self, what: str) -> None:
        """Raises Forbidden for who is of one project; `what` is not up to that."""
        if self.project is not None:
            raise Forbidden(f"{what} is not up to the project {self.project!r}.")

    def see(self, project: str | None) -> None:
        """Raises NotFound for another project's things: no oracle of what exists there."""
        if self.project is not None and project != self.project:
            raise NotFound(NOTHING)

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


ADMIN: Final = Principal("admin")  # whoever shows the admin token


def moment(given: datetime | None, name: str) -> int | None:
    """A given time in milliseconds. Raises Invalid for one that no clock can mean."""
    if given is None:
        return None
    try:
        return within_reason(from_datetime(given))
    except (ValueError, OverflowError):
        raise Invalid(f"{name} is not a time from 1970 to 2200.", parameter=name) from None


NOTHING: Final = "There is nothing by that id."


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
        self._uses: dict[str, int] = {}  # API tokens' last uses that are not noted yet

    def _by(
        self,
        who: Principal,
        action: Action,
        target: str | None,
        project: str | None,
        *,
        of: Callable[[Any], Mapping[str, Any] | None] = lambda outcome: {},
        **details: Any,
    ) -> Store:
        """The store, whose next verb leaves an audit row of what somebody does.

        `of` finds more details in what became of it, a `target` among them if it was only made
        now; None: nothing became of it.
        """

        def note(outcome: Any) -> Deed | None:
            found = of(outcome)
            if found is None:
                return None
            return self._deed(
                who, action, project=project, **{"target": target, **details, **found}
            )

        return self.store.audited(note)

    def _deed(
        self,
        who: Principal,
        action: Action,
        *,
        target: str | None = None,
        project: str | None = None,
        **details: Any,
    ) -> Deed:
        return Deed(
            at=self._clock(),
            actor=who.name,
            actor_name=who.title,
            action=action,
            target=target,
            project=project,
            request_id=who.request_id,
            details={name: value for name, value in details.items() if value is not None},
            once=who.once,
        )

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
