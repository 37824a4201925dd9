"""Changed tokens: none may be taken but the one that is, to the letter, what was minted.

In one process, many at a time; the control is itsdangerous' own signer, which takes some: base64
has spare bits, so other last characters, `=` and `$$$$` verify as well.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from itsdangerous import BadData, TimestampSigner

from receiver.errors import TokenExpired, TokenRefused
from receiver.tokens import WEBHOOK_SALT, Claims, Source, TokenBox, digest_tags
from scripts.proofs.harness import DAY, KEY, new_uuid

KEYS: Final = (KEY, "an-older-key-for-proofs-only-0123456789abcdef")
TAGS: Final = (("projectId", "proj_789"), ("team", "a/b c"))
TOKENS: Final = 50  # minted, from which all others are made
_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_ANY: Final = _ALPHABET + "=.$+/%~ \n\x00é"

Change = Callable[[random.Random, str, str], str]


def _replace(dice: random.Random, token: str, _other: str) -> str:
    at = dice.randrange(len(token))
    return token[:at] + dice.choice(_ANY) + token[at + 1 :]


def _last(dice: random.Random, token: str, _other: str) -> str:
    return token[:-1] + dice.choice(_ALPHABET)


def _insert(dice: random.Random, token: str, _other: str) -> str:
    at = dice.randrange(len(token) + 1)
    return token[:at] + "".join(dice.choices(_ANY, k=dice.choice((1, 2, 4)))) + token[at:]


def _omit(dice: random.Random, token: str, _other: str) -> str:
    at = dice.randrange(len(token))
    return token[:at] + token[at + dice.choice((1, 1, 2, 4, 43)) :]


def _append(dice: random.Random, token: str, _other: str) -> str:
    return token + dice.choice(("=", "==", "$$$$", "\n", ".", "%3D", "A", "AAAA"))


def _bit(dice: random.Random, token: str, _other: str) -> str:
    at = dice.randrange(len(token))
    return token[:at] + chr(ord(token[at]) ^ (1 << dice.randrange(7))) + token[at + 1 :]


def _case(dice: random.Random, token: str, _other: str) -> str:
    at = dice.randrange(len(token))
    return token[:at] + token[at:].swapcase()


def _exchange(_dice: random.Random, token: str, other: str) -> str:
    return f"{token.partition('.')[0]}.{other.partition('.')[2]}"


def _swap(dice: random.Random, token: str, _other: str) -> str:
    first, second = sorted(dice.sample(range(len(token)), 2))
    changed = list(token)
    changed[first], changed[second] = changed[second], changed[first]
    return "".join(changed)


CHANGES: Final[Mapping[str, Change]] = {
    "replace": _replace,
    "last": _last,
    "insert": _insert,
    "omit": _omit,
    "append": _append,
    "bit": _bit,
    "case": _case,
    "exchange": _exchange,
    "swap": _swap,
}


def forge(count: int, seed: int) -> dict[str, Any]:
    """Try so many changed tokens on all processors; what was taken."""
    workers = os.cpu_count() or 1
    jobs = [
        (count // workers + (number < count % workers), seed + number) for number in range(workers)
    ]
    begun = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        parts = pool.starmap(_try, jobs)
    tried: Counter[str] = Counter()
    for part in parts:
        tried.update(part["tried"])
    return {
        "tried": tried.total(),
        "by_change": dict(tried),
        "unchanged_and_taken": sum(part["unchanged"] for part in parts),
        "taken": [text for part in parts for text in part["taken"]],
        "refused_unchanged": sum(part["refused"] for part in parts),
        "seconds": round(time.perf_counter() - begun, 1),
    }


def _try(count: int, seed: int) -> dict[str, Any]:
    dice, now = random.Random(seed), time.time_ns() // 1_000_000
    box = TokenBox(KEYS)
    minted = [TokenBox([dice.choice(KEYS)]).mint(_claims(now)) for _ in range(TOKENS)]
    tried: Counter[str] = Counter()
    taken, unchanged, refused = [], 0, 0
    while tried.total() < count:
        name = dice.choice(_NAMES)
        token, other = dice.sample(minted, 2)
        mutant = CHANGES[name](dice, token, other)
        passed = _opens(box, mutant, now)
        if mutant == token:  # the change gave what was there
            unchanged += passed
            refused += not passed
            continue
        tried[name] += 1
        if passed:
            taken.append(f"{name} at {_difference(token, mutant)}")
    return {"tried": tried, "taken": taken, "unchanged": unchanged, "refused": refused}


_NAMES: Final[Sequence[str]] = tuple(CHANGES)


def _claims(now: int) -> Claims:
    return Claims(
        jti=secrets.token_bytes(16),
        task=new_uuid(),
        platform="runware",
        project="default",
        expected=1,
        source=Source.CALLBACK,
        issued_at=now,
        expires_at=now + DAY,
        tags=digest_tags(TAGS),
    )


def _opens(box: TokenBox, token: str, now: int) -> bool:
    try:
        box.verify(token, platform="runware", tags=TAGS, now=now)
    except (TokenRefused, TokenExpired):
        return False
    return True


def _difference(token: str, mutant: str) -> str:
    at = next(
        (at for at, pair in enumerate(zip(token, mutant, strict=False)) if len(set(pair)) > 1), -1
    )
    return f"{at} of {len(token)}, then {len(mutant)} long"


def control(count: int, seed: int) -> dict[str, Any]:
    """The same changes of tokens of itsdangerous' own signer, as its documents show it."""
    dice = random.Random(seed)
    signer = TimestampSigner(
        KEY, salt=WEBHOOK_SALT, key_derivation="hmac", digest_method=hashlib.sha256
    )
    minted = [signer.sign(new_uuid()).decode() for _ in range(TOKENS)]
    taken: Counter[str] = Counter()
    for _ in range(count):
        name = dice.choice(_NAMES)
        token, other = dice.sample(minted, 2)
        mutant = CHANGES[name](dice, token, other)
        if mutant == token:
            continue
        try:
            signer.unsign(mutant)
        except (BadData, ValueError):
            continue
        taken[name] += 1
    return {"signer": "itsdangerous.TimestampSigner", "tried": count, "taken": dict(taken)}
