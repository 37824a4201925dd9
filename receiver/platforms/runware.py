"""Floor 0, nouns: Runware's callback bodies as items, and its error codes as categories. Pure.

Every envelope that any source shows is read (reference: platforms.md §1.5-1.6): a flat item,
`{"data": […]}`, `{"errors": […]}`, both, `{"error": {…}|[…]}`, a bare list, and an item with an
embedded error. `status` may be absent on a success: media make it one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from receiver import ids
from receiver.errors import Unreadable
from receiver.platforms.items import Category, Item, Kind, Media, PlatformError
from receiver.platforms.reading import (
    boolean_of,
    dumps,
    integer_of,
    mapping_of,
    micros_of,
    text_of,
)

_MEDIA: Final = tuple(
    (kind, f"{kind}UUID", f"{kind}URL") for kind in ("video", "image", "audio", "media")
)
MAX_ITEMS: Final = 256  # a task owes a few; thousands would hold up everybody else
_WORKING: Final = frozenset({"processing", "pending", "queued", "progress", "running"})

# The first pattern that matches decides, so the order is part of the rule: `insufficientCredits`
# is quota before anything general, `invalidApiKey` is auth before `invalid*`.
_CATEGORIES: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), category)
    for pattern, category in (
        (r"credits|quota|balance|^paymentrequired$|^environmentpaused$", Category.QUOTA),
        (r"ratelimit", Category.RATE_LIMIT),
        (
            r"apikey|^unauthorized|^forbidden|permission|^auth(entication|failed|timeout)"
            r"|^(invalid|missing)authentication|^invalidcredentials|^token|^account"
            r"|^organization|^workspace",
            Category.AUTH,
        ),
        (
            r"contentpolicy|sensitivecontent|unsafecontent|nsfw|^promptblocked|^imageblocked"
            r"|^moderation|^safety|^invalidprovidercontent$",
            Category.SAFETY,
        ),
        (r"timeout", Category.TIMEOUT),
        (r"notfound$|expired$|^taskcancell?ed$|^unknownmodel$", Category.NOT_FOUND),
        (
            r"^invalid|^missing|conflict|^duplicate|^unsupported|^value|^array|^max"
            r"|^unknownparameter|^incompatible|^mismatch|^unknownproviderSettings"
            r"|^validation|^transparentmodel|^modelownership|^modelalready",
            Category.VALIDATION,
        ),
        (
            r"^provider|^inference|^processingfailed|^taskfailed|^downloadfailed|^uploadfailed"
            r"|^noavailableserver|^model(unavailable|disabled|notready)|^mediastorage",
            Category.PROVIDER,
        ),
    )
)


def categorise(code: str) -> Category:
    """The category of a raw code; what nobody knows is the server's fault, and retryable."""
    for pattern, category in _CATEGORIES:
        if pattern.search(code):
            return category
    return Category.SERVER


_Ordinals = defaultdict[tuple[str | None, str], int]


def parse(body: Any, task_id: str | None) -> list[Item]:
    """The items of a body; an item without an id belongs to `task_id`, the token's task.

    Raises Unreadable when there is not one JSON object in it that could be an item.
    """
    ordinals: _Ordinals = defaultdict(int)
    walked = list(islice(_walk(body, task_id), MAX_ITEMS + 1))
    if len(walked) > MAX_ITEMS:
        raise Unreadable("too_many_items", f"more than {MAX_ITEMS} items in one body")
    items = [_read(found, owner, is_error, ordinals) for found, owner, is_error in walked]
    if not items:
        raise Unreadable("unknown_shape", "no item of a shape that Runware sends")
    return items


_Found = tuple[Mapping[str, Any], str | None, bool]


def _walk(body: Any, task_id: str | None) -> Iterator[_Found]:
    """Each object that could be an item, with its task and whether it stood among errors."""
    if isinstance(body, list):
        for found in _objects(body):
            yield found, _owner(found, task_id), False
        return
    envelope = mapping_of(body)
    if envelope is None:
        return
    owner = _owner(envelope, task_id)
    if "data" not in envelope and "errors" not in envelope:
        yield from _walk_flat(envelope, owner)
        return
    for found in _objects(envelope.get("data")):
        yield found, _owner(found, owner), False
    for name in ("errors", "error"):
        for found in _objects(envelope.get(name)):
            yield found, _owner(found, owner), True


def _walk_flat(envelope: Mapping[str, Any], owner: str | None) -> Iterator[_Found]:
    errors = envelope.get("error")
    if isinstance(errors, list):
        for found in _objects(errors):
            yield found, _owner(found, owner), True
    elif envelope:
        yield envelope, owner, False


def _objects(value: Any) -> list[Mapping[str, Any]]:
    listed = value if isinstance(value, list) else [value]
    return [found for found in listed if isinstance(found, dict)]


def _owner(found: Mapping[str, Any], default: str | None) -> str | None:
    named = found.get("taskUUID")
    if named == default or not isinstance(named, str) or not named:
        return default
    try:
        return ids.canonical_task(named)
    except ValueError:
        return text_of(named, 200)  # no task of ours: foreign, whatever it is


def _read(
    found: Mapping[str, Any],
    owner: str | None,
    is_error: bool,
    ordinals: _Ordinals,
) -> Item:
    raw = dumps(found)
    error = _error(found, is_error)
    if error is not None:
        ordinal = ordinals[owner, error.code]
        ordinals[owner, error.code] += 1
        key = f"error:{error.code}:{ordinal}"
        return Item(Kind.FAILED, owner, key, raw, error=error, cost=micros_of(found.get("cost")))
    working = _status(found) in _WORKING
    media = () if working else _media(found)
    if media:
        return _success(found, owner, media, raw)
    if working or "progress" in found:
        return Item(Kind.PROGRESS, owner, "", raw)
    return Item(Kind.UNKNOWN, owner, "", raw)


def _success(
    found: Mapping[str, Any], owner: str | None, media: tuple[Media, ...], raw: str
) -> Item:
    first = media[0]
    identity = first.id.lower() if first.id else (first.url or "").partition("?")[0]
    return Item(
        Kind.SUCCEEDED,
        owner,
        f"{first.kind}:{identity}",
        raw,
        media=media,
        seed=integer_of(found.get("seed")),
        cost=micros_of(found.get("cost")),
        nsfw=boolean_of(found.get("NSFWContent")),
    )


def _status(found: Mapping[str, Any]) -> str:
    status = found.get("status")
    return status.lower() if isinstance(status, str) else ""


def _error(found: Mapping[str, Any], is_error: bool) -> PlatformError | None:
    embedded = found.get("error")
    if isinstance(embedded, dict):
        source: Mapping[str, Any] = embedded
    elif is_error or _status(found) == "error" or ("code" in found and "message" in found):
        source = found
    else:
        return None
    code = text_of(source.get("code"), 100) or "unknownError"
    message = text_of(source.get("message")) or text_of(embedded) or ""
    return PlatformError(code, categorise(code), message)


def _media(found: Mapping[str, Any]) -> tuple[Media, ...]:
    seen = []
    for kind, identity_name, url_name in _MEDIA:
        if identity_name in found or url_name in found:
            identity = text_of(found.get(identity_name), 200)
            url = text_of(found.get(url_name), 4_000)
            if identity or url:
                seen.append(Media(kind, identity, url))
    return tuple(seen)
