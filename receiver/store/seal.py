"""Floor 2, edges: endpoints' secrets and header values, encrypted at rest. cryptography only.

The container is Fernet's (AES-128-CBC, HMAC-SHA256; github.com/fernet/spec), whose MultiFernet is
made for several keys. It has no place for the row that a text belongs to, so the place stands in
front of the text, inside: a row can't be given another one's secret.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from receiver.errors import CannotStart, SettingsRefused

SEALED: Final = "sealed"
# As it stands in a column's JSON: the text itself, or {"sealed": token}, which no text can feign.
Kept = str | dict[str, str]

_KEY: Final = re.compile(r"[A-Za-z0-9+/_-]{43}=?", re.ASCII)
_OPENED: Final = 4_096  # texts that stay opened, so that a change of one endpoint opens one alone


class CannotOpen(CannotStart):
    """The database holds what none of REELHOOK_ENCRYPTION_KEYS opens; nothing was touched."""

    code = "cannot_open"


class Seal:
    """Seals and opens texts. `keys`, newest first: each opens, the first seals; none: in clear."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        fernets = [Fernet(_fernet_key(key)) for key in keys]
        self._newest = fernets[0] if fernets else None
        self._all = MultiFernet(fernets) if fernets else None
        self._opened = lru_cache(_OPENED)(self._decrypted)

    @property
    def seals(self) -> bool:
        """Whether there is a key to seal with."""
        return self._newest is not None

    def close(self, place: str, text: str) -> Kept:
        """The text as it is kept at a place (`table/row/column`)."""
        if self._newest is None:
            return text
        return {SEALED: self._newest.encrypt(f"{place}\n{text}".encode()).decode()}

    def open(self, place: str, kept: Kept) -> str:
        """The text that is kept at a place. Raises CannotOpen."""
        if isinstance(kept, str):
            return kept
        where, _, text = self._opened(kept[SEALED]).partition("\n")
        if where != place:
            raise CannotOpen(
                f"What is kept at {place} was sealed for {where}: somebody moved it. Restore a"
                " backup.",
                place=place,
            )
        return text

    def _decrypted(self, token: str) -> str:
        if self._all is None:
            raise CannotOpen(
                "The database has sealed secrets and REELHOOK_ENCRYPTION_KEYS is not set. Set it to"
                " the key that sealed them."
            )
        try:
            return self._all.decrypt(token).decode()
        except InvalidToken:
            raise CannotOpen(
                "The database has secrets that none of REELHOOK_ENCRYPTION_KEYS opens. Put the key"
                " that sealed them behind the newest one, separated by a comma."
            ) from None

    def is_newest(self, kept: Kept) -> bool:
        """Whether `close` would keep it with the same key, or in clear, now."""
        if self._newest is None or isinstance(kept, str):
            return self._newest is None and isinstance(kept, str)
        try:
            self._newest.decrypt(kept[SEALED])
        except InvalidToken:
            return False
        return True


def key_for(purpose: str, secret: str) -> str:
    """A key for a `Seal`, made of a secret that is one for something else (RFC 5869 §2.2)."""
    made = hmac.digest(secret.encode(), f"reelhook {purpose}".encode(), "sha256")
    return urlsafe_b64encode(made).decode()


def _fernet_key(key: str) -> bytes:
    """32 bytes in base64, as Fernet wants them. Raises SettingsRefused without showing the key."""
    if not _KEY.fullmatch(key):
        raise SettingsRefused(
            "REELHOOK_ENCRYPTION_KEYS has a key that is not 32 bytes in base64. Make one with"
            " `reelhook keys new`."
        )
    standard = key.rstrip("=").translate(str.maketrans("-_", "+/"))
    return urlsafe_b64encode(b64decode(f"{standard}="))
