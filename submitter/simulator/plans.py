"""A task's fate, drawn when it is accepted: results, faults, waits, bodies. Pure: no I/O.

All randomness comes from (platform, seed, ordinal of the task there, purpose). So one seed gives
the same run whatever the timing, and turning one knob doesn't move what the others draw.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from uuid import UUID

from submitter.simulator import contract
from submitter.simulator.config import Knobs
from submitter.simulator.contract import Json

FAILING = "simulator:fail@1"
PARTIAL = "simulator:partial@1"
SUFFIXES = {"video": "mp4", "image": "jpg"}
ERROR_ENVELOPES = ("errors", "error", "flat", "item")


@dataclass(frozen=True, slots=True)
class Dice:
    """The random numbers of one task, a separate stream for each purpose."""

    seed: int
    ordinal: int
    platform: str = ""

    def stream(self, purpose: str) -> Random:
        """The stream for `purpose`, from its beginning."""
        text = f"{self.platform}{self.seed}/{self.ordinal}/{purpose}"
        return Random(text)  # noqa: S311 - repeatable on purpose


@dataclass(frozen=True, slots=True)
class Outcome:
    """One result: `item` as a poll shows it, the callback's `bodies`, and when.

    No bodies: the callback is dropped. More than one: the rest are duplicates, sent after a 2xx.
    `turn` orders outcomes that are ready at the same moment; `progress` are the callbacks that
    only say that the result is in work.
    """

    item: Json
    media_id: str | None
    turn: int
    ready_after_s: float
    callback_after_s: float
    bodies: tuple[bytes, ...]
    progress: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """What a plan depends on besides the task."""

    knobs: Knobs
    dice: Dice
    base_url: str
    published: Mapping[str, Json]


def plan(task: Json, setting: Setting) -> tuple[Outcome, ...]:
    """The outcomes of a checked task, in the stable order in which a poll lists them."""
    count = task.get("numberResults", 1)
    fails = failing(task, count, setting)
    items = [
        fault(task, setting.knobs) if fails[index] else success(task, index, setting)
        for index in range(count)
    ]
    times = waits(count, setting)
    reports = progress(task, setting)
    return tuple(
        replace(_outcome(item, index, times[index], setting), progress=reports)
        for index, item in enumerate(items)
    )


def failing(task: Json, count: int, setting: Setting) -> list[bool]:
    """Which results fail: all or the last of the two failing models, or as the knobs say."""
    rng = setting.dice.stream("failures")
    drawn = [rng.random() < setting.knobs.failures for _ in range(count)]
    model = task["model"]
    return [
        hit
        or model == FAILING
        or (model == PARTIAL and index == count - 1)
        or index == setting.knobs.fail_index
        for index, hit in enumerate(drawn)
    ]


def waits(count: int, setting: Setting) -> list[tuple[int, float]]:
    """(turn, seconds until ready) of each result; drawn, a later turn is never ready earlier."""
    knobs, rng = setting.knobs, setting.dice.stream("waits")
    if knobs.delays is not None:
        given = [float(text) for text in knobs.delays.split(",")]
        return [(index, given[min(index, len(given) - 1)]) for index in range(count)]
    low, high = knobs.delay_s - knobs.spread_s, knobs.delay_s + knobs.spread_s
    drawn = sorted(max(0.0, rng.uniform(low, high)) for _ in range(count))
    turns = list(range(count))
    if knobs.order == "shuffled":
        rng.shuffle(turns)
    return [(turn, 0.0 if knobs.callback_before_ack else drawn[turn]) for turn in turns]


def fault(task: Json, knobs: Knobs) -> Json:
    """The error item of a result that failed."""
    code = knobs.failure_code
    return contract.error(code, task, status="error", documentation=contract.DOCUMENTATION)


def success(task: Json, index: int, setting: Setting) -> Json:
    """The item of a result that succeeded; the first of a published task is the published one."""
    rng, kind = setting.dice.stream(f"result/{index}"), contract.MEDIA[task["taskType"]]
    media_id, seed = uuid4(rng), _seed(task, index, setting.knobs, rng)
    known = setting.published.get(task["taskUUID"].lower(), {}) if index == 0 else {}
    media_id, seed = known.get(f"{kind}UUID", media_id), known.get("seed", seed)
    item: Json = {
        **contract.acknowledge(task),
        "status": "success",
        f"{kind}UUID": media_id,
        f"{kind}URL": f"{setting.base_url}/{kind}/{media_id}.{SUFFIXES[kind]}",
        "seed": seed,
    }
    if known or task.get("includeCost"):
        item["cost"] = known.get("cost", contract.price(task))
    return item | _oddities(setting.knobs, rng)


def uuid4(rng: Random) -> str:
    """A random UUID out of `rng`."""
    return str(UUID(int=rng.getrandbits(128), version=4))


def _seed(task: Json, index: int, knobs: Knobs, rng: Random) -> int:
    small, big = rng.randrange(2**31), rng.randrange(2**31, 2**32)
    if knobs.big_seeds:
        return big
    asked = task.get("seed")
    return asked if index == 0 and isinstance(asked, int) else small


def _oddities(knobs: Knobs, rng: Random) -> Json:
    flagged, queued = rng.random() < 0.25, rng.randrange(5000)
    nsfw: Json = {"NSFWContent": flagged} if knobs.include_nsfw else {}
    extra: Json = {"region": "simulated", "timings": {"queueMs": queued, "steps": [1, 2]}}
    return nsfw | (extra if knobs.extra_fields else {})


def _outcome(item: Json, index: int, wait: tuple[int, float], setting: Setting) -> Outcome:
    turn, ready_after_s = wait
    return Outcome(
        item=item,
        media_id=item.get("videoUUID") or item.get("imageUUID"),
        turn=turn,
        ready_after_s=ready_after_s,
        callback_after_s=setting.knobs.late_s,
        bodies=bodies(item, index, setting),
    )


def bodies(item: Json, index: int, setting: Setting) -> tuple[bytes, ...]:
    """The callback of one result and its duplicates; empty when it is dropped."""
    knobs, rng = setting.knobs, setting.dice.stream(f"callback/{index}")
    dropped, doubled = rng.random() < knobs.drop, rng.random() < knobs.duplicates
    drawn = rng.choice(("wrapped", "flat")), rng.choice(ERROR_ENVELOPES)
    if dropped:
        return ()
    wanted = knobs.error_envelope if "code" in item else knobs.envelope
    envelope = drawn["code" in item] if wanted == "mixed" else wanted
    first = encode(_body(item, envelope))
    copy = encode(_body(_altered(item, knobs.duplicate_kind), envelope))
    if knobs.duplicate_kind == "reordered":
        copy = encode(reordered(json.loads(first)))
    return (first, *([copy] * knobs.duplicate_count if doubled else []))


def _body(item: Json, envelope: str) -> Json:
    seal = contract.envelop_error if "code" in item else contract.envelop
    return seal(item, envelope)


def _altered(item: Json, kind: str) -> Json:
    if kind != "conflict" or "code" in item:
        return item
    if "cost" in item:
        return {**item, "cost": round(item["cost"] + 0.01, 6)}
    return {**item, "seed": item["seed"] + 1}


def progress(task: Json, setting: Setting) -> tuple[bytes, ...]:
    """The bodies that report work: `processing`, with a share in percent."""
    knobs = setting.knobs
    envelope = "flat" if knobs.envelope == "flat" else "wrapped"
    count = knobs.progress_callbacks
    shares = [round(100 * step / (count + 1)) for step in range(1, count + 1)]
    working = {**contract.acknowledge(task), "status": "processing"}
    return tuple(encode(contract.envelop({**working, "progress": s}, envelope)) for s in shares)


def encode(body: Json) -> bytes:
    """Compact UTF-8 JSON."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def reordered(value: Any) -> Any:
    """The same JSON with the keys of every object in reverse order."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(each) for each in value] if isinstance(value, list) else value


def by_task(pairs: Sequence[Json]) -> dict[str, Json]:
    """Published responses by the taskUUID of their request."""
    return {pair["request"]["taskUUID"]: pair["response"] for pair in pairs}
