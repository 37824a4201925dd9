"""Floor 4, doors: a browser's session: its cookie, and whose page asks. Starlette only."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from receiver.admin.ops import Ops, Principal
from receiver.clock import SECOND
from receiver.errors import Forbidden
from receiver.sessions import LIFE, Session, SessionBox

SAFE: Final = frozenset({"GET", "HEAD"})
_TOLD_FOR: Final = 60  # seconds that a sentence waits for the next page


class Visitor(NamedTuple):
    """A session, and whom it stands for now."""

    session: Session
    who: Principal


class Sessions:
    """Reads and writes the cookies of sessions.

    Cookies are not kept apart by port, so each receiver has a name of its own: two of them on one
    machine would log each other out.
    """

    def __init__(self, ops: Ops, box: SessionBox, instance: str) -> None:
        self._ops = ops
        self._box = box
        self._name = f"reelhook_{instance[:8]}"
        self._public = urlsplit(ops.public_url)

    async def of(self, request: Request) -> Visitor | None:
        """Who is logged in where this request comes from; nobody by a token that is gone."""
        text = request.cookies.get(self._cookie(request))
        session = None if text is None else self._box.open(text, self._ops.now())
        if session is None or await self._ops.is_logged_out(session):
            return None
        who = await self._ops.standing(session.name)
        return None if who is None else Visitor(session, replace(who, session=session))

    def begin(self, request: Request, response: Response, session: Session) -> None:
        """Log in."""
        self._set(request, response, "", self._box.seal(session), LIFE // SECOND)

    async def end(
        self, request: Request, response: Response, who: Principal, session: Session
    ) -> None:
        """Log out, here and wherever the cookie was copied to."""
        await self._ops.log_out(who, session)
        self._set(request, response, "", "", 0)

    def csrf(self, session: Session) -> str:
        """What each form of this session carries."""
        return self._box.csrf(session)

    def check_csrf(self, session: Session, given: str) -> None:
        """Raises Forbidden for a form that no page of this session made."""
        if not self._box.is_csrf(session, given):
            raise Forbidden("This form is of another session. Load its page anew, and try again.")

    def tell(self, request: Request, response: Response, text: str) -> None:
        """Say something on the next page."""
        self._set(request, response, "_notice", self._box.seal_notice(text), _TOLD_FOR)

    def told(self, request: Request) -> str | None:
        """What the page before wants to be said."""
        text = request.cookies.get(self._cookie(request, "_notice"))
        return None if text is None else self._box.open_notice(text)

    def forget_notice(self, request: Request, response: Response) -> None:
        """It was said."""
        self._set(request, response, "_notice", "", 0)

    def _cookie(self, request: Request, suffix: str = "") -> str:
        prefix = "__Host-" if self._is_secure(request) else ""
        return f"{prefix}{self._name}{suffix}"

    def _set(
        self, request: Request, response: Response, suffix: str, value: str, seconds: int
    ) -> None:
        response.set_cookie(
            self._cookie(request, suffix),
            value,
            max_age=seconds,
            secure=self._is_secure(request),
            httponly=True,
            samesite="strict",
        )

    def _is_secure(self, request: Request) -> bool:
        # A browser talks to loopback in clear, even where the public URL is https: that is how an
        # admin port is reached, and a receiver behind a tunnel from the machine it runs on.
        if request.url.scheme == "https":
            return True
        return self._public.scheme == "https" and not _is_loopback(request.url.hostname or "")

    def check_origin(self, request: Request) -> None:
        """Raises Forbidden for an unsafe request that another site's page has made.

        `Sec-Fetch-Site` is the browser's own word, which no script can change; where it is missing
        (plain http to a host that is not loopback) `Origin` is. Who sends neither is no browser,
        and has nothing that a form could borrow.
        """
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        if site is not None:
            is_ours = site == "same-origin"
        else:
            ours = (request.headers.get("host"), self._public.netloc)
            is_ours = origin is None or origin.partition("://")[2] in ours
        if not is_ours:
            raise Forbidden("This request comes from another site's page.")


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
