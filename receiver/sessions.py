"""Floor 0, nouns: a session of the dashboard, the cookie that carries it, and its CSRF token.

All three are itsdangerous signatures under salts of their own, by a key that follows from the admin
token: whoever may sign webhookURLs can't make a session, and a new admin token ends all of them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Final, NamedTuple

from itsdangerous.encoding import base64_decode, base64_encode
from itsdangerous.exc import BadData
from pydantic import AwareDatetime, BaseModel

from receiver.clock import HOUR, MINUTE
from receiver.tokens import StrictSigner

SESSION_SALT: Final = "reelhook.session.v1"
CSRF_SALT: Final = "reelhook.csrf.v1"
NOTICE_SALT: Final = "reelhook.notice.v1"
LIFE: Final = 12 * HOUR  # of a session, from the login on
CODE_LIFE: Final = 10 * MINUTE  # of a login link
MAX_COOKIE: Final = 2_048  # bytes


class Session(NamedTuple):
    """Somebody who logged in: `admin`, or by the id of an API token. In milliseconds since 1970."""

    id: str
    name: str
    expires_at: int


class LoginLink(BaseModel):
    """A link that logs in once; `path` is relative to wherever the API is reached."""

    path: str
    expires_at: AwareDatetime


class SessionBox:
    """Signs sessions, their CSRF tokens and what one page says on the next."""

    def __init__(self, key: str) -> None:
        self._sessions = StrictSigner([key], SESSION_SALT)
        self._csrf = StrictSigner([key], CSRF_SALT)
        self._notices = StrictSigner([key], NOTICE_SALT)

    def seal(self, session: Session) -> str:
        """The cookie's text."""
        return _sealed(self._sessions, json.dumps(session, separators=(",", ":")))

    def open(self, text: str, now: int) -> Session | None:
        """The session of a cookie, unless it was forged or is over."""
        found = _opened(self._sessions, text)
        if found is None:
            return None
        session = Session(*json.loads(found))
        return session if session.expires_at > now else None

    def csrf(self, session: Session) -> str:
        """What a form of this session carries."""
        return self._csrf.get_signature(session.id).decode("ascii")

    def is_csrf(self, session: Session, given: str) -> bool:
        """Whether a form came out of a page of this session."""
        return hmac.compare_digest(self.csrf(session).encode(), given.encode())

    def seal_notice(self, text: str) -> str:
        """A sentence for the next page, as a cookie's text."""
        return _sealed(self._notices, text)

    def open_notice(self, text: str) -> str | None:
        """The sentence of a cookie, if it is ours."""
        return _opened(self._notices, text)


def _sealed(signer: StrictSigner, text: str) -> str:
    return signer.sign(base64_encode(text)).decode("ascii")


def _opened(signer: StrictSigner, text: str) -> str | None:
    if len(text) > MAX_COOKIE or text.count(".") != 1 or not text.isascii():
        return None
    try:
        return base64_decode(signer.unsign(text)).decode()
    except BadData:
        return None


def digest_code(code: str) -> bytes:
    """What is kept of a login code: it has 256 random bits, so that one SHA-256 hides it."""
    return hashlib.sha256(code.encode()).digest()
