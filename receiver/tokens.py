"""Floor 0, nouns: the signed webhookURL: mint it, verify it. itsdangerous only.

A token is an itsdangerous signature (SHA-256, HMAC key derivation, one salt a purpose) over compact
JSON claims. It is bound to one task and to the tags that stand beside it in the query. Only the
canonical signature text is accepted: base64 has spare bits, so three other last characters, `=` and
`$$$$` would otherwise verify too (RFC 4648 §3.5).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from itsdangerous import Signer
from itsdangerous.encoding import base64_decode, base64_encode, want_bytes
from itsdangerous.exc import BadData

from receiver import ids
from receiver.clock import DAY, HOUR, SECOND
from receiver.errors import Invalid, SettingsRefused, TokenExpired, TokenRefused

WEBHOOK_SALT: Final = "reelhook.webhook.v1"
VERSION: Final = 1
MAX_TOKEN: Final = 512  # bytes
MAX_QUERY: Final = 1_024  # bytes
MIN_KEY: Final = 32  # characters
REMEMBERED: Final = 4_096  # tokens whose signature need not be checked again
LEEWAY: Final = 120 * SECOND
DEFAULT_PROJECT: Final = "default"
RESERVED_TAGS: Final = frozenset({"sig", "apiKey"})

Pairs = Iterable[tuple[str, str]]


class Source(StrEnum):
    """Who posts to the signed URL (the claim `src`); the last two never come from outside."""

    CALLBACK = "callback"
    POLL = "poll"
    SUBMIT = "submit"
    DEADLINE = "deadline"


class Claims(NamedTuple):
    """What a token says. Times in milliseconds since 1970; `tags` is a digest of the tag pairs."""

    jti: bytes
    task: str
    platform: str
    project: str
    expected: int
    source: Source
    issued_at: int
    expires_at: int
    tags: str


class StrictSigner(Signer):
    """itsdangerous, but a signature has exactly one spelling, and keys are derived once."""

    def __init__(self, keys: Sequence[str], salt: str) -> None:
        # Settings list keys newest first, itsdangerous wants the newest last.
        super().__init__(
            list(reversed(keys)),
            salt=salt,
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )
        derived = [super(StrictSigner, self).derive_key(key) for key in self.secret_keys]
        self._begun = [hmac.new(key, digestmod=hashlib.sha256) for key in derived]

    def get_signature(self, value: str | bytes) -> bytes:
        """The canonical signature text under the newest key."""
        return self._text(self._begun[-1], want_bytes(value))

    def verify_signature(self, value: str | bytes, sig: str | bytes) -> bool:
        """Whether `sig` is, to the letter, what one of the keys gives."""
        text, given = want_bytes(value), want_bytes(sig)
        found = False
        for begun in self._begun:
            found |= hmac.compare_digest(self._text(begun, text), given)
        return found

    def _text(self, begun: hmac.HMAC, value: bytes) -> bytes:
        # What itsdangerous' HMACAlgorithm computes, from where its key ends. `hmac.digest` begins
        # anew each time, and lets go of the interpreter's lock, which the writer's thread then has.
        signature = begun.copy()
        signature.update(value)
        return base64_encode(signature.digest())


class TokenBox:
    """Mints and verifies webhook tokens with `keys` (newest first; every key verifies)."""

    def __init__(self, keys: Sequence[str]) -> None:
        check_keys(keys)
        self._signer = StrictSigner(keys, WEBHOOK_SALT)
        # A task's results and the platform's retries come with one and the same token.
        self._claims_of = lru_cache(maxsize=REMEMBERED)(self._open)

    def mint(self, claims: Claims) -> str:
        """The token of these claims."""
        payload = base64_encode(_dump(claims))
        token = self._signer.sign(payload).decode("ascii")
        if len(token) > MAX_TOKEN:
            raise Invalid(
                f"The token would have {len(token)} bytes, at most {MAX_TOKEN} are allowed."
            )
        return token

    def verify(
        self, token: str, *, platform: str, tags: Pairs, now: int, wall: int | None = None
    ) -> Claims:
        """The claims of a token that stands beside `tags`. Raises TokenRefused, TokenExpired.

        `wall`: what the system's clock says, when `now` is of a steadier one. A token is too old,
        or from the future, only if it is by both.
        """
        if len(token) > MAX_TOKEN or token.count(".") != 1 or not token.isascii():
            raise TokenRefused(reason="malformed")
        try:
            claims = self._claims_of(token)
        except (BadData, ValueError, KeyError, TypeError, AttributeError):
            raise TokenRefused(reason="forged") from None
        if claims.platform != platform or claims.tags != digest_tags(tags):
            raise TokenRefused(reason="altered")
        wall = now if wall is None else wall
        if claims.issued_at - LEEWAY > now and claims.issued_at - LEEWAY > wall:
            raise TokenRefused(reason="from_the_future")
        if claims.expires_at + LEEWAY < now and claims.expires_at + LEEWAY < wall:
            raise TokenExpired(claims)
        return claims

    def _open(self, token: str) -> Claims:
        return _load(base64_decode(self._signer.unsign(token)))


def check_keys(keys: Sequence[str]) -> None:
    """Raises SettingsRefused unless there is a key and each is long enough to guess nothing."""
    if not keys:
        raise SettingsRefused(
            "REELHOOK_SIGNING_KEYS is not set. Make one with `reelhook keys new`."
        )
    for key in keys:
        if len(key) < MIN_KEY:
            raise SettingsRefused(
                f"A key in REELHOOK_SIGNING_KEYS has {len(key)} characters, at least {MIN_KEY} are"
                " needed. Make one with `reelhook keys new`."
            )


def digest_tags(tags: Pairs) -> str:
    """SHA-256 over the sorted, decoded pairs: a proxy may re-encode, nobody may alter."""
    return _digest(tuple(sorted(tags)))


@lru_cache(maxsize=1_024)
def _digest(pairs: tuple[tuple[str, str], ...]) -> str:
    canonical = json.dumps(pairs, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()


def default_expiry(now: int, give_up_at: int | None) -> int:
    """24 hours from now, or an hour after the task is given up, whichever is later."""
    return max(now + DAY, (give_up_at or 0) + HOUR)


def check_tags(tags: Mapping[str, str]) -> None:
    """Raises Invalid for tags that can't stand in a webhookURL."""
    for name, value in tags.items():
        if not name or name in RESERVED_TAGS:
            raise Invalid(f"A tag can't be called {name!r}: that name carries the credential.")
        if not all(character.isprintable() for character in name + value):
            raise Invalid(f"The tag {name!r} has characters that can't stand in a URL.")


def webhook_url(public_url: str, platform: str, token: str, tags: Mapping[str, str]) -> str:
    """`{public_url}/webhooks/{platform}?sig=…&tag=…`. Raises Invalid if the query is too long."""
    check_tags(tags)
    query = urlencode([("sig", token), *tags.items()], quote_via=quote)
    if len(query) > MAX_QUERY:
        raise Invalid(
            f"The webhookURL's query would have {len(query)} bytes, {MAX_QUERY} at most."
            " Shorten the tags, or put what is private or long into metadata."
        )
    return f"{public_url.rstrip('/')}/webhooks/{platform}?{query}"


def _dump(claims: Claims) -> bytes:
    fields = {
        "v": VERSION,
        "j": base64.urlsafe_b64encode(claims.jti).decode().rstrip("="),
        "t": claims.task,
        "p": claims.platform,
        "o": claims.project,
        "n": claims.expected,
        "s": claims.source.value,
        "i": claims.issued_at,
        "e": claims.expires_at,
        "h": claims.tags,
    }
    return json.dumps(fields, separators=(",", ":")).encode()


def _load(payload: bytes) -> Claims:
    fields: Mapping[str, Any] = json.loads(payload.decode())
    if fields["v"] != VERSION:
        raise ValueError("a version this release does not know")
    return Claims(
        jti=base64_decode(fields["j"]),
        task=ids.canonical_task(fields["t"]),
        platform=fields["p"],
        project=fields["o"],
        expected=fields["n"],
        source=Source(fields["s"]),
        issued_at=fields["i"],
        expires_at=fields["e"],
        tags=fields["h"],
    )
