"""Floor 4, doors: how a page of the dashboard is made and sent. Starlette and Jinja2 only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from receiver.access import ADMINS, Scope
from receiver.admin.dashboard import marks, rows, wording
from receiver.admin.dashboard.assets import Assets
from receiver.admin.ops import Page, Principal, Query
from receiver.admin.routes.answers import cursor_text
from receiver.admin.routes.requests import check_parameters, check_texts, query_of
from receiver.admin.sessions import Sessions
from receiver.clock import to_datetime
from receiver.errors import Invalid
from receiver.sessions import Session

TEMPLATES: Final = Path(__file__).parent / "templates"
LOOPBACK: Final = "http://127.0.0.1:* http://localhost:*"  # a simulator's media

# Nothing but our own files, no script or style within a page, and media from wherever platforms
# keep them. What a stranger wrote has nothing to run with, even if it were not escaped.
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        f"img-src 'self' https: {LOOPBACK}",
        f"media-src 'self' https: {LOOPBACK}",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
# `same-origin` and not `no-referrer`: others are told nothing either way, but with the latter a
# browser says `Origin: null` for our own forms too, and nothing would be left to check.
HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


class Entry(NamedTuple):
    """A place in the navigation."""

    path: str
    label: str
    icon: str


# In groups, as they stand one below the other.
NAVIGATION: Final[Sequence[Sequence[Entry]]] = (
    (
        Entry("/", "Overview", "overview"),
        Entry("/tasks", "Tasks", "film"),
        Entry("/callbacks", "Callbacks", "inbox"),
    ),
    (
        Entry("/events", "Events", "bolt"),
        Entry("/deliveries", "Deliveries", "send"),
        Entry("/dead-letters", "Dead letters", "skull"),
        Entry("/endpoints", "Endpoints", "hook"),
        Entry("/jobs", "Jobs", "layers"),
    ),
    (
        Entry("/audit", "Audit", "list"),
        Entry("/tokens", "API tokens", "key"),
        Entry("/settings", "Settings", "sliders"),
        Entry("/health", "Health", "pulse"),
        Entry("/docs", "API", "braces"),
    ),
)

ROWS: Final = 25  # of a list, unless its URL says how many
THEME: Final = "reelhook_theme"  # a cookie's name
THEMES: Final = ("light", "dark")  # or what the system has

Handler = Callable[["Visit"], Awaitable[Response]]


class PageRow(NamedTuple):
    """A page or a form of the dashboard.

    `twin` is the path of the API that gives a program what the page shows; its path parameters and
    its filters are the page's.
    """

    method: str  # GET or POST: a form has no other
    path: str
    handler: Handler
    twin: str | None = None
    allowed: Set[Scope] | None = None  # None: as its twin; without one readers see and admins do
    of_all: bool = False  # of the receiver as a whole, so that it is not for one project
    part: str = ""  # of the twin, as a fragment


# Who sees the same navigation: a scope, and whether it is for one project.
Kind = tuple[Scope, bool]


def kind_of(who: Principal) -> Kind:
    """Which navigation somebody sees."""
    return who.scope, who.project is not None


class Pages:
    """The templates. `paths` are those that are open to each kind of visitor, so that the
    navigation leads nobody to what is shut."""

    def __init__(self, assets: Assets, paths: Mapping[Kind, Set[str]]) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters.update({**wording.FILTERS, **marks.FILTERS, **rows.FILTERS})
        self._environment.globals.update(assets=assets)
        self._paths = paths
        self._navigation: dict[Kind, Mapping[str, Markup]] = {}

    def _navigations(self, paths: Set[str]) -> Mapping[str, Markup]:
        """The navigation as it stands on the pages of each entry, and on those of none ("")."""
        groups = [[one for one in group if one.path in paths] for group in NAVIGATION]
        shown = [group for group in groups if group]
        heres = ["", *(entry.path for group in shown for entry in group)]
        return {
            here: Markup(self.render("navigation.html", navigation=shown, here=here))  # noqa: S704
            for here in heres
        }

    def navigation(self, path: str, who: Principal) -> Markup:
        """The navigation that somebody has on the page at `path`."""
        kind = kind_of(who)
        if kind not in self._navigation:  # not at the start, which most of them would only hold up
            self._navigation[kind] = self._navigations(self._paths[kind])
        shown = self._navigation[kind]
        return shown.get("/" + path[1:].partition("/")[0]) or shown[""]

    def render(self, template: str, **context: Any) -> str:
        """The text of a page. A name that the template uses and nobody gives is an error."""
        return self._environment.get_template(template).render(context)

    def answer(self, template: str, status: int = 200, **context: Any) -> Response:
        """A page as it is sent."""
        # Half a character that a platform sent is shown as it is written in JSON.
        text = self.render(template, **context).encode("utf-8", "backslashreplace")
        return HTMLResponse(text, status, HEADERS)


@dataclass
class Visit:
    """One request of somebody who is logged in."""

    request: Request
    who: Principal
    session: Session
    now: int  # milliseconds since 1970
    pages: Pages
    sessions: Sessions
    row: PageRow
    form: Mapping[str, str] = field(default_factory=dict)  # of a POST

    @property
    def may_change(self) -> bool:
        """Whether the forms of a page are for this visitor."""
        return self.who.scope in ADMINS

    @property
    def navigation(self) -> Markup:
        """Where else to go, this page's entry marked."""
        return self.pages.navigation(self.path, self.who)

    @cached_property
    def csrf(self) -> str:
        """What each form carries."""
        return self.sessions.csrf(self.session)

    @cached_property
    def path(self) -> str:
        """This page's path."""
        return self.request.url.path

    @cached_property
    def given(self) -> Mapping[str, str]:
        """The filters in this page's URL."""
        return {name: text for name, text in self.request.query_params.items() if text}

    @cached_property
    def query(self) -> Query:
        """What this page is asked for; a person is shown fewer rows than a program. Raises Invalid,
        for a parameter that its twin does not have too."""
        check_parameters(self.request)
        asked = query_of(self.request)
        return asked if self.given.get("limit") else replace(asked, limit=ROWS)

    @property
    def here(self) -> str:
        """This page as it was asked for."""
        query = self.request.url.query
        return f"{self.path}?{query}" if query else self.path

    def id(self, name: str = "id") -> str:
        """A part of this page's path."""
        found: str = self.request.path_params[name]
        return found

    def url(self, **changes: str | None) -> str:
        """This page with other filters; None takes one off. A new filter begins at the top."""
        kept = {name: text for name, text in self.given.items() if name != "cursor"}
        changed = {name: text for name, text in (kept | changes).items() if text}
        return f"{self.path}?{urlencode(changed)}" if changed else self.path

    @property
    def twin(self) -> str | None:
        """Where a program finds what this page shows."""
        if self.row.twin is None:
            return None
        names = {name: quote(text, safe="") for name, text in self.request.path_params.items()}
        query = self.request.url.query
        whole = self.row.twin.format(**names) + (f"?{query}" if query else "")
        return f"{whole}#{self.row.part}" if self.row.part else whole

    def following(self, page: Page[Any]) -> str | None:
        """The URL of the next page of a list."""
        cursor = cursor_text(page.next_cursor)
        return None if cursor is None else self.url(cursor=cursor)

    def show(self, template: str, status: int = 200, **context: Any) -> Response:
        """Answer with a page; what the one before wants to be said stands on it."""
        notice = self.sessions.told(self.request)
        response = self.pages.answer(
            template,
            status,
            visit=self,
            notice=notice,
            theme=theme_of(self.request),
            now=to_datetime(self.now),
            **context,
        )
        if notice is not None:
            self.sessions.forget_notice(self.request, response)
        return response

    def go(self, path: str, notice: str | None = None) -> Response:
        """Answer a form: on to a page, which says how it went."""
        response = RedirectResponse(path, 303, HEADERS)
        if notice is not None:
            self.sessions.tell(self.request, response, notice)
        return response


def form_of(body: bytes) -> Mapping[str, str]:
    """The fields of a form (application/x-www-form-urlencoded). Raises Invalid."""
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise Invalid("This is not a form that a page of ours sends.") from None
    form = {name: text for name, text in pairs}
    check_texts(form)
    return form


def local(path: str) -> str:
    """Where to go after a login: a page of ours, or the overview."""
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if is_ours and path.isprintable() else "/"


def theme_of(request: Request) -> str:
    """The colours that were chosen; "" for the system's."""
    chosen = request.cookies.get(THEME, "")
    return chosen if chosen in THEMES else ""
