"""The three bodies in which NanoGPT documents errors, and both kinds of 402. Pure: no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

from submitter.simulator.nanogpt.contract import PRECHARGE, Fault, instant

Json = dict[str, Any]

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_denied_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "service_unavailable",
}
# The types of the body with `refundMessage`; other faults keep their usual type.
REFUND_TYPES = {402: "INSUFFICIENT_BALANCE", 403: "PRO_REQUIRED", 429: "RATE_LIMITED"}
POLICY = "content_policy_violation"
SHAPES = ("openai", "simple", "refund")


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: its body is JSON."""

    status: int
    body: Json
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def body(fault: Fault, shape: str) -> Json:
    """The fault in one of the `SHAPES`."""
    kind = TYPES.get(fault.status, "server_error" if fault.status >= 500 else "api_error")
    if shape == "simple":
        balance = {"requiredBalance": PRECHARGE} if fault.status == 402 else {}
        return {"error": fault.message, "status": fault.status, **balance}
    if shape == "refund":
        kind = REFUND_TYPES.get(fault.status, kind)
        kind = "CONTENT_POLICY_VIOLATION" if fault.code == POLICY else kind
        told = {"message": fault.message, "type": kind}
        return {"error": told, "refundMessage": "You have not been charged for this request."}
    told = {"message": fault.message, "type": kind, "code": fault.code}
    return {"error": told | ({"param": fault.param} if fault.param else {})}


def challenge(rng: Random, now: datetime) -> Answer:
    """A 402 as an x402 payment challenge: what to pay before the request is carried out."""
    payment: Json = {
        "version": 1,
        "paymentId": f"pay_{rng.getrandbits(64):016x}",
        "requestHash": f"sha256:{rng.getrandbits(256):064x}",
        "expiresAt": instant(now + timedelta(minutes=15)),
        "amountUsd": f"{PRECHARGE:.4f}",
        "accepted": [],
    }
    told = {
        "type": "insufficient_quota",
        "code": "insufficient_quota",
        "message": "Payment required to complete this request.",
    }
    rest = {"payment": payment, "x402Version": 1, "accepts": []}
    return Answer(402, {"error": told, **rest}, (("x-x402", "true"),))
