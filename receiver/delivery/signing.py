"""Floor 1, decisions: signatures by Standard Webhooks 1.0.0. Pure; cryptography for Ed25519.

Randomness and time are passed in. Secrets are text: `whsec_` (shared), `whsk_` (Ed25519, ours)
and `whpk_` (Ed25519, the consumer's half), each followed by base64.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from receiver.errors import ReelhookError

SHARED, PRIVATE, PUBLIC = "whsec_", "whsk_", "whpk_"
ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
TOLERANCE: Final = 300

_SEED: Final = 32
_READY: Final = 1_024  # keys that were used last
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]+={0,2}", re.ASCII)
_UNIX_SECONDS: Final = re.compile(r"[0-9]{1,15}", re.ASCII)


class SignatureRefused(ReelhookError):
    """A signature that does not hold, or a secret that can't make one; `reason` is stable.

    Reasons: missing_header, bad_timestamp, too_old, too_new, no_match, bad_secret.
    """

    code = "signature_refused"

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason, reason=reason)
        self.reason = reason


def new_secret(random_bytes: bytes) -> str:
    """A shared secret of 24 to 64 random bytes (32 is a good number)."""
    if not 24 <= len(random_bytes) <= 64:
        raise SignatureRefused("bad_secret", "a shared secret has 24 to 64 bytes")
    return SHARED + b64encode(random_bytes).decode()


def own_secret(text: str) -> str:
    """A secret that a user brings along, as every library takes it. Raises SignatureRefused."""
    raw = _decoded(text.removeprefix(SHARED)) if text.startswith(SHARED) else None
    if raw is None:
        raise SignatureRefused("bad_secret", f"a shared secret is {SHARED} and base64")
    return new_secret(raw)


def new_private_key(random_bytes: bytes) -> str:
    """An Ed25519 key of 32 random bytes, with its public half appended as is customary."""
    if len(random_bytes) != _SEED:
        raise SignatureRefused("bad_secret", "an Ed25519 key has 32 bytes")
    public = Ed25519PrivateKey.from_private_bytes(random_bytes).public_key().public_bytes_raw()
    return PRIVATE + b64encode(random_bytes + public).decode()


def public_key(whsk: str) -> str:
    """The half of an Ed25519 key that consumers get."""
    return PUBLIC + b64encode(_private(whsk).public_key().public_bytes_raw()).decode()


def sign(
    secrets: Sequence[str],
    *,
    event_id: str,
    timestamp: int,
    body: bytes,
    ed25519_keys: Sequence[str] = (),
) -> str:
    """The `webhook-signature` of one attempt: every live secret first, then every Ed25519 key."""
    if not secrets:
        raise SignatureRefused("bad_secret", "there is no secret to sign with")
    content = _content(event_id, str(timestamp), body)
    parts = [_v1(_shared(secret), content) for secret in secrets]
    parts += [_v1a(_private(key), content) for key in ed25519_keys]
    return " ".join(parts)


def verify(
    secrets: Sequence[str],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: int,
    tolerance: int = TOLERANCE,
    public_keys: Sequence[str] = (),
) -> None:
    """Return if one secret or public key made one of the signatures. Raises SignatureRefused."""
    keys = [_shared(secret) for secret in secrets]
    verifiers = [_public(key) for key in public_keys]
    if not keys and not verifiers:
        raise SignatureRefused("bad_secret", "there is no secret to verify with")
    given = {name.lower(): value for name, value in headers.items()}
    event_id, timestamp, signatures = (
        _required(given, name) for name in (ID, TIMESTAMP, SIGNATURE)
    )
    _check_age(timestamp, now, tolerance)
    content = _content(event_id, timestamp, body)
    if not (_any_v1(keys, content, signatures) or _any_v1a(verifiers, content, signatures)):
        raise SignatureRefused("no_match", "no signature was made with a known secret")


def _required(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise SignatureRefused("missing_header", f"{name} is missing")
    return value


def _check_age(timestamp: str, now: int, tolerance: int) -> None:
    if not _UNIX_SECONDS.fullmatch(timestamp):
        raise SignatureRefused("bad_timestamp", f"{TIMESTAMP} is not a number of seconds")
    age = now - int(timestamp)
    if age > tolerance:
        raise SignatureRefused("too_old", f"{TIMESTAMP} is {age} s old")
    if age < -tolerance:
        raise SignatureRefused("too_new", f"{TIMESTAMP} is {-age} s ahead")


def _content(event_id: str, timestamp: str, body: bytes) -> bytes:
    # surrogatepass: two different ids must never become the same bytes, nor raise
    return f"{event_id}.{timestamp}.".encode("utf-8", "surrogatepass") + body


def _v1(key: bytes, content: bytes) -> str:
    return "v1," + b64encode(hmac.digest(key, content, "sha256")).decode()


def _v1a(key: Ed25519PrivateKey, content: bytes) -> str:
    return "v1a," + b64encode(key.sign(content)).decode()


def _any_v1(keys: Iterable[bytes], content: bytes, signatures: str) -> bool:
    expected = [hmac.digest(key, content, "sha256") for key in keys]
    found = False
    # no early exit: how long this takes tells nothing about which secret matched
    for given in _entries(signatures, "v1"):
        for digest in expected:
            found |= hmac.compare_digest(digest, given)
    return found


def _any_v1a(keys: Sequence[Ed25519PublicKey], content: bytes, signatures: str) -> bool:
    given = list(_entries(signatures, "v1a")) if keys else []
    return any(_holds(key, signature, content) for key in keys for signature in given)


def _holds(key: Ed25519PublicKey, signature: bytes, content: bytes) -> bool:
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True


def _entries(signatures: str, version: str) -> Iterator[bytes]:
    """The well-formed signatures of one version; whatever else is there is skipped."""
    for entry in signatures.split(" "):
        label, _, text = entry.partition(",")
        decoded = _decoded(text) if label == version else None
        if decoded is not None:
            yield decoded


def _shared(secret: str) -> bytes:
    return _material(secret, SHARED)


# Kept ready, since every attempt signs: making an Ed25519 key takes longer than its signature.
@lru_cache(maxsize=_READY)
def _private(whsk: str) -> Ed25519PrivateKey:
    raw = _material(whsk, PRIVATE)
    if len(raw) not in (_SEED, 2 * _SEED):
        raise SignatureRefused(
            "bad_secret", "an Ed25519 key has 32 bytes, or 64 with its public half"
        )
    key = Ed25519PrivateKey.from_private_bytes(raw[:_SEED])
    if raw[_SEED:] not in (b"", key.public_key().public_bytes_raw()):
        raise SignatureRefused(
            "bad_secret", "the two halves of the Ed25519 key do not belong together"
        )
    return key


def _public(whpk: str) -> Ed25519PublicKey:
    raw = _material(whpk, PUBLIC)
    if len(raw) != _SEED:
        raise SignatureRefused("bad_secret", "an Ed25519 public key has 32 bytes")
    return Ed25519PublicKey.from_public_bytes(raw)


@lru_cache(maxsize=_READY)
def _material(text: str, prefix: str) -> bytes:
    raw = _decoded(text.removeprefix(prefix))
    if not raw:
        raise SignatureRefused("bad_secret", f"a secret is {prefix} and base64")
    return raw


def _decoded(text: str) -> bytes | None:
    """Base64, padded or not; None for anything else."""
    bare = text.rstrip("=")
    if not _BASE64.fullmatch(text) or len(bare) % 4 == 1:
        return None
    return b64decode(bare + "=" * (-len(bare) % 4))
