"""Floor 1, decisions: what the ledger keeps of a request. Pure.

A request may carry images and videos of megabytes. Of those the ledger keeps a digest: enough to
see that a request is the same, not enough to send it again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

# A text up to so many characters is kept, whatever it is: a thumbnail, or a long prompt.
LARGEST: Final = 4_096

_BASE64: Final = re.compile(r"[A-Za-z0-9+/_\-]+={0,2}\s*")
_MARK: Final = re.compile(r"sha256:[0-9a-f]{64} \(\d+ bytes\)")


def kept(request: Mapping[str, Any]) -> dict[str, Any]:
    """A request as the ledger keeps it, and gives it back: JSON, and digests of large media."""
    found: dict[str, Any] = json.loads(json.dumps({k: _kept(v) for k, v in request.items()}))
    return found


def _kept(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _kept(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_kept(inner) for inner in value]
    return _mark(value) if isinstance(value, str) and _is_large_media(value) else value


def _is_large_media(text: str) -> bool:
    if len(text) <= LARGEST:
        return False
    return text.startswith("data:") or _BASE64.fullmatch(text) is not None


def _mark(text: str) -> str:
    content = text.encode()
    return f"sha256:{hashlib.sha256(content).hexdigest()} ({len(content)} bytes)"


def missing(value: Any, name: str = "") -> Iterator[str]:
    """Where in a kept request the ledger has but a digest."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from missing(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from missing(inner, f"{name}.{place}")
    elif isinstance(value, str) and _MARK.fullmatch(value):
        yield name
