"""Floor 4, doors: who comes into the dashboard, and its routes. Starlette only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from itertools import product
from typing import Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from receiver.access import ADMINS, READERS, Scope
from receiver.admin.auth import PRINCIPAL, Auth, asking, remote_of, request_id_of
from receiver.admin.dashboard.access import AccessPages
from receiver.admin.dashboard.assets import Assets
from receiver.admin.dashboard.callbacks import CallbackPages
from receiver.admin.dashboard.condition import ConditionPages
from receiver.admin.dashboard.deliveries import DeliveryPages
from receiver.admin.dashboard.endpoints import EndpointPages
from receiver.admin.dashboard.events import EventPages
from receiver.admin.dashboard.jobs import JobPages
from receiver.admin.dashboard.live import LivePages
from receiver.admin.dashboard.overview import OverviewPages
from receiver.admin.dashboard.pages import (
    HEADERS,
    THEME,
    THEMES,
    PageRow,
    Pages,
    Visit,
    form_of,
    local,
    theme_of,
)
from receiver.admin.dashboard.tasks import TaskPages
from receiver.admin.ops import Ops
from receiver.admin.routes.requests import check_texts
from receiver.admin.routes.rows import ROW, Row
from receiver.admin.sessions import SAFE, Sessions, Visitor
from receiver.errors import Refusal, StoreUnavailable, Unauthenticated
from receiver.sessions import Session

MAX_FORM: Final = 256 << 10  # bytes
API: Final = "/docs"  # a page beside ours
A_YEAR: Final = 365 * 24 * 3_600  # seconds

Note = Callable[[str], int | None]  # a failure of this address; seconds to wait, if too many


class Dashboard:
    """The pages for people. `failures` counts logins that failed."""

    def __init__(
        self, ops: Ops, auth: Auth, sessions: Sessions, twins: Sequence[Row], failures: Note
    ) -> None:
        self._ops = ops
        self._auth = auth
        self._sessions = sessions
        self._failures = failures
        self._twins = {row.path: row for row in twins if row.method == "GET"}
        self._assets = Assets()
        self._table = self.table()
        kinds = product(Scope, (False, True))
        self._pages = Pages(self._assets, {kind: self._open_to(*kind) for kind in kinds})

    def _open_to(self, scope: Scope, is_of_a_project: bool) -> Set[str]:
        """The paths of the pages that are not shut to whoever has this scope."""
        paths = {
            row.path
            for row in self._table
            if row.method == "GET"
            and scope in self._allowed(row)
            and not (row.of_all and is_of_a_project)
        }
        return paths | {
            path for path in self._twins.keys() & {API} if scope in self._twins[path].scopes
        }

    def table(self) -> Sequence[PageRow]:
        """Every page and form."""
        return (
            *OverviewPages(self._ops).table(),
            *LivePages(self._ops).table(),
            *TaskPages(self._ops).table(),
            *CallbackPages(self._ops).table(),
            *EventPages(self._ops).table(),
            *DeliveryPages(self._ops).table(),
            *EndpointPages(self._ops).table(),
            *JobPages(self._ops).table(),
            *AccessPages(self._ops).table(),
            *ConditionPages(self._ops).table(),
            PageRow("POST", "/logout", self._log_out, allowed=READERS),
            PageRow("POST", "/theme", self._set_theme, allowed=READERS),
        )

    def routes(self) -> list[Route]:
        """Every route, the files and the login included; named paths before those with an id."""
        paths: dict[str, dict[str, PageRow]] = {}
        for row in sorted(self._table, key=_named_first):
            paths.setdefault(row.path, {})[row.method] = row
        return [
            self._assets.route(),
            Route("/login", self._login, methods=["GET", "POST"], max_body_size=MAX_FORM),
            *(
                Route(path, self._guarded(rows), methods=[*rows], max_body_size=MAX_FORM)
                for path, rows in paths.items()
            ),
        ]

    def _guarded(self, rows: Mapping[str, PageRow]) -> Callable[[Request], Awaitable[Response]]:
        twins = {row.twin: self._twins[row.twin] for row in rows.values() if row.twin}

        async def endpoint(request: Request) -> Response:
            visitor = await self._sessions.of(request)
            if visitor is None:
                return self._turn_away(request)
            row = rows["GET" if request.method == "HEAD" else request.method]
            request.scope[PRINCIPAL] = visitor.who.name
            if row.twin is not None:
                request.scope[ROW] = twins[row.twin]  # whose filters the page takes
            return await self._answer(self._visit(request, visitor, row))

        return endpoint

    def _visit(self, request: Request, visitor: Visitor, row: PageRow) -> Visit:
        return Visit(
            request,
            asking(visitor.who, request),
            visitor.session,
            self._ops.now(),
            self._pages,
            self._sessions,
            row,
        )

    async def _answer(self, visit: Visit) -> Response:
        try:
            check_texts(visit.given)
            if visit.row.method == "POST":
                await self._check(visit)
            visit.who.allow(self._allowed(visit.row))
            return await visit.row.handler(visit)
        except Refusal as error:
            return visit.show("refused.html", error.status, message=str(error), code=error.code)
        except StoreUnavailable as error:
            return visit.show("refused.html", 503, message=str(error), code=error.code)

    def _allowed(self, row: PageRow) -> Set[Scope]:
        if row.allowed is not None:
            return row.allowed
        if row.method == "POST":  # whoever may read the twin: its form is another matter
            return ADMINS
        return READERS if row.twin is None else self._twins[row.twin].scopes

    async def _check(self, visit: Visit) -> None:
        """Raises Forbidden unless a page of ours, in this session, asks for a change."""
        self._sessions.check_origin(visit.request)
        visit.form = form_of(await visit.request.body())
        header = visit.request.headers.get("x-csrf-token", "")
        self._sessions.check_csrf(visit.session, header or visit.form.get("csrf", ""))

    def lost(self, request: Request) -> Response | None:
        """What a person sees where there is nothing; None for a program."""
        is_page = not request.url.path.startswith(("/v1/", "/webhooks/", "/static/"))
        if not is_page or "text/html" not in request.headers.get("accept", ""):
            return None
        return self._pages.answer("lost.html", 404, theme=theme_of(request))

    def _turn_away(self, request: Request) -> Response:
        is_safe = request.method in SAFE
        back = local(_place(request)) if is_safe else "/"
        login = "/login" if back == "/" else f"/login?{urlencode({'next': back})}"
        if "hx-request" in request.headers:  # a part of a page must not become the login
            return Response(status_code=401, headers={**HEADERS, "hx-redirect": login})
        if is_safe and request.headers.get("sec-fetch-site") == "cross-site":
            # A strict cookie does not come with a click on another site's page, such as a chat's.
            # It does come when a page of ours leads to the same place.
            return self._pages.answer("onward.html", place=back, theme=theme_of(request))
        return RedirectResponse(login, 303, HEADERS)

    async def _login(self, request: Request) -> Response:
        if request.method in SAFE:
            given = request.query_params
            return self._ask(request, given.get("code", ""), given.get("next", "/"))
        try:
            self._sessions.check_origin(request)
            form = form_of(await request.body())
            session = await self._session_for(request, form)
        except Refusal as error:
            return self._refuse(request, error)
        except StoreUnavailable as error:
            return self._ask(request, status=503, problem=str(error))
        response = RedirectResponse(local(form.get("next", "/")), 303, HEADERS)
        self._sessions.begin(request, response, session)
        return response

    async def _session_for(self, request: Request, form: Mapping[str, str]) -> Session:
        """A session for who shows a link's code, or a token. Raises Refusal."""
        if form.get("code"):
            return await self._ops.log_in(form["code"], remote_of(request), request_id_of(request))
        try:
            who = await self._auth.known(form.get("token", "").strip())
        except Unauthenticated:
            raise Unauthenticated("This is not a token that opens the dashboard.") from None
        who.allow(READERS)
        return await self._ops.begin_session(asking(who, request))

    def _refuse(self, request: Request, error: Refusal) -> Response:
        if error.status == 401:
            wait = self._failures(remote_of(request))
            if wait is not None:
                return self._ask(request, status=429, problem=f"Too many tries. Wait {wait} s.")
        return self._ask(request, status=error.status, problem=str(error))

    def _ask(
        self,
        request: Request,
        code: str = "",
        onward: str = "/",
        status: int = 200,
        problem: str | None = None,
    ) -> Response:
        return self._pages.answer(
            "login.html",
            status,
            code=code,
            onward=local(onward),
            problem=problem,
            theme=theme_of(request),
        )

    async def _log_out(self, visit: Visit) -> Response:
        response = RedirectResponse("/login", 303, HEADERS)
        await self._sessions.end(visit.request, response, visit.who, visit.session)
        return response

    async def _set_theme(self, visit: Visit) -> Response:
        response = RedirectResponse(local(visit.form.get("next", "/")), 303, HEADERS)
        chosen = visit.form.get("theme", "")
        response.set_cookie(
            THEME, chosen if chosen in THEMES else "", max_age=A_YEAR, httponly=True, samesite="lax"
        )
        return response


def _named_first(row: PageRow) -> list[bool]:
    return [part.startswith("{") for part in row.path.split("/")]


def _place(request: Request) -> str:
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path
