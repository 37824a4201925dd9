"""Signatures against the libraries of Standard Webhooks, for Python and for JavaScript.

A real delivery to a real socket is what they verify; what they sign, `reelhook verify` takes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from receiver.clock import HOUR, wall_clock
from receiver.delivery.signing import (
    SignatureRefused,
    new_private_key,
    new_secret,
    public_key,
    sign,
    verify,
)
from tests import warm
from tests.doubles import (
    LIMIT_S,
    ROOT,
    Assembled,
    Consumer,
    Heard,
    assembled,
    consuming,
    environment,
)
from tests.make import success, uuid
from tests.receiver.store.suite import arrival_of

LIBRARY: Final = "standardwebhooks@1.1.1"
SCRIPT: Final = ROOT / "tests" / "oracles" / "standardwebhooks.cjs"
SECRET, OTHER = (new_secret(bytes([n]) * 32) for n in (5, 6))
PRIVATE = new_private_key(bytes([7]) * 32)
BODIES: Final = {
    "plain": '{"type":"task.overdue","data":{}}',
    "empty": "{}",
    "beyond ASCII": '{"text":"Bötchen 紙の舟 🛶","escaped":"\\u0000"}',
    "large": json.dumps({"text": "x" * 20_000}),
}

Ask = Callable[[Sequence[Mapping[str, Any]]], list[str]]


@pytest.fixture(scope="session")
def javascript() -> Iterator[Ask]:
    """Asks the JavaScript library; installed from the registry for this session, by npm's cache."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node is not installed (Debian: nodejs and npm)")
    with tempfile.TemporaryDirectory(prefix="reelhook-node-") as folder:
        _install(npm, folder)

        def ask(cases: Sequence[Mapping[str, Any]]) -> list[str]:
            found = subprocess.run(
                [node, str(SCRIPT)],
                input=json.dumps(list(cases)),
                env={**os.environ, "NODE_PATH": f"{folder}/node_modules"},
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=True,
            )
            answers: list[str] = json.loads(found.stdout)
            return answers

        yield ask


def _install(npm: str, folder: str) -> None:
    # Nothing of it is kept here: a lock file would name the registry's host.
    flags = "--no-save --no-package-lock --no-audit --no-fund --ignore-scripts --prefer-offline"
    try:
        subprocess.run(
            [npm, "install", *flags.split(), "--prefix", folder, LIBRARY],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=2 * LIMIT_S,
            check=True,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm's registry does not answer")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{LIBRARY} can't be installed: {error.stderr.strip()[-200:]}")


def raw(key: str) -> str:
    """The base64 of a key, without its prefix."""
    return key.partition("_")[2]


def headers_of(signature: str, at: int, event_id: str = "evt_1") -> dict[str, str]:
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(at),
        "webhook-signature": signature,
    }


def now() -> int:
    return int(datetime.now(UTC).timestamp())


# What goes out


@dataclass
class Line:
    """A receiver whose deliveries go to a consumer, when told."""

    receiver: Assembled
    consumer: Consumer
    endpoint: dict[str, Any]
    sent: int = 0

    async def next(self) -> Heard:
        """The next delivery, as it came off the socket."""
        self.sent += 1
        await self.receiver.store.record(
            arrival_of(uuid(self.sent), success(self.sent), expected=2)
        )
        await self.attempt()
        return self.consumer.heard.get_nowait()

    async def attempt(self) -> None:
        await self.receiver.service.worker.tick()
        await self.receiver.service.worker.drain()

    async def ask(self, verb: str, **asked: Any) -> dict[str, Any]:
        path = f"/v1/endpoints/{self.endpoint['id']}/{verb}"
        response = await self.receiver.client.post(path, json=asked)
        assert response.status_code == 200
        found: dict[str, Any] = response.json()
        return found


@asynccontextmanager
async def line(folder: Path, **spec: Any) -> AsyncIterator[Line]:
    async with (
        consuming() as consumer,
        assembled(folder, REELHOOK_ALLOW_NETWORKS="127.0.0.0/8") as receiver,
    ):
        receiver.clock.now = wall_clock()  # the libraries look at the machine's
        asked = {"url": consumer.url, "event_types": ["result.*"], **spec}
        made = (await receiver.client.post("/v1/endpoints", json=asked)).json()
        yield Line(receiver, consumer, made)


def accepts(secret: str, heard: Heard) -> bool:
    """Whether the Python library takes it."""
    try:
        Webhook(secret).verify(heard.body, heard.headers)
    except WebhookVerificationError:
        return False
    return True


def asked(secret: str, heard: Heard) -> dict[str, Any]:
    return {
        "way": "verify",
        "secret": secret,
        "headers": heard.headers,
        "body": heard.body.decode(),
    }


def asked_v1a(key: str, heard: Heard) -> dict[str, Any]:
    return {**asked("", heard), "way": "verify_v1a", "key": raw(key)}


@pytest.mark.anyio
@pytest.mark.parametrize("signatures", [["v1"], ["v1", "v1a"]])
async def test_the_python_library_takes_a_delivery(tmp_path: Path, signatures: list[str]) -> None:
    async with line(tmp_path, signatures=signatures) as found:
        heard = await found.next()
        kinds = [entry.split(",")[0] for entry in heard.headers["webhook-signature"].split(" ")]
        assert kinds == signatures
        assert accepts(found.endpoint["secret"], heard)
        assert not accepts(SECRET, heard)
        assert not accepts(found.endpoint["secret"], Heard(heard.head, heard.body + b" "))


@pytest.mark.anyio
async def test_the_javascript_library_takes_a_delivery_and_node_its_v1a(
    tmp_path: Path, javascript: Ask
) -> None:
    async with line(tmp_path, signatures=["v1", "v1a"]) as found:
        heard = await found.next()
        secret, key = found.endpoint["secret"], found.endpoint["public_key"]
        altered = Heard(heard.head, heard.body + b" ")
        cases = [asked(secret, heard), asked_v1a(key, heard)]
        wrong = [
            asked(SECRET, heard),
            asked(secret, altered),
            asked_v1a(public_key(PRIVATE), heard),
            asked_v1a(key, altered),
        ]
        answers = javascript([*cases, *wrong])
        assert answers == ["good"] * 2 + ["No matching signature found"] * 4


@pytest.mark.anyio
async def test_during_a_rotation_both_libraries_take_the_old_secret_and_the_new(
    tmp_path: Path, javascript: Ask
) -> None:
    async with line(tmp_path, signatures=["v1", "v1a"]) as found:
        old, new = found.endpoint, await found.ask("rotate-secret", overlap_s=3_600)
        during = await found.next()
        found.receiver.clock.now += HOUR
        after = await found.next()
        # The machine's clock has not moved, and a library refuses what is an hour ahead.
        assert during.headers["webhook-signature"].count(",") == 4
        assert after.headers["webhook-signature"].count(",") == 2
        assert [accepts(of["secret"], during) for of in (old, new)] == [True, True]
        both = [
            *[asked(of["secret"], during) for of in (old, new)],
            *[asked_v1a(of["public_key"], during) for of in (old, new)],
        ]
        assert javascript(both) == ["good"] * 4
        assert javascript([asked_v1a(of["public_key"], after) for of in (old, new)]) == [
            "No matching signature found",
            "good",
        ]
        later = int(after.headers["webhook-timestamp"])
        verify([new["secret"]], after.headers, after.body, now=later)
        with pytest.raises(SignatureRefused):
            verify([old["secret"]], after.headers, after.body, now=later)


@pytest.mark.anyio
async def test_a_retry_has_the_same_id_and_a_signature_of_its_own(
    tmp_path: Path, javascript: Ask
) -> None:
    async with line(tmp_path, schedule=[0, 5]) as found:
        found.consumer.answer = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        first = await found.next()
        found.receiver.clock.now += 60_000
        await found.attempt()
        second = found.consumer.heard.get_nowait()
        assert first.body == second.body
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
        secret = found.endpoint["secret"]
        assert accepts(secret, first)
        assert accepts(secret, second)
        assert javascript([asked(secret, first), asked(secret, second)]) == ["good"] * 2


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_any_body_is_signed_as_both_libraries_read_it(body: str, javascript: Ask) -> None:
    at = now()
    signature = sign(
        [OTHER, SECRET], event_id="evt_1", timestamp=at, body=body.encode(), ed25519_keys=[PRIVATE]
    )
    heard = {"headers": headers_of(signature, at), "body": body}
    Webhook(SECRET).verify(body, headers_of(signature, at))
    key = raw(public_key(PRIVATE))
    cases = [
        {"way": "verify", "secret": SECRET, **heard},
        {"way": "verify_v1a", "key": key, **heard},
    ]
    assert javascript(cases) == ["good"] * 2


# What comes in


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_we_take_what_javascript_signs(body: str, javascript: Ask) -> None:
    at, given = now(), {"body": body, "id": "evt_1"}
    private = b64decode(raw(PRIVATE))
    pair = {"key": b64encode(private[:32]).decode(), "public_key": b64encode(private[32:]).decode()}
    v1, v1a = javascript(
        [
            {"way": "sign", "secret": SECRET, "timestamp": at, **given},
            {"way": "sign_v1a", **pair, "headers": headers_of("", at), **given},
        ]
    )
    verify([SECRET], headers_of(v1, at), body.encode(), now=at)
    verify([], headers_of(v1a, at), body.encode(), now=at, public_keys=[public_key(PRIVATE)])
    with pytest.raises(SignatureRefused):
        verify([OTHER], headers_of(v1, at), body.encode(), now=at)


def reelhook_verify(
    folder: Path, signature: str, body: str, at: int, *options: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    arguments = [*("--id", "evt_1", "--timestamp", str(at), "--signature", signature), *options]
    return subprocess.run(
        warm.reelhook("verify", *arguments, "-"),
        cwd=ROOT,
        env=environment(folder, **environ),
        input=body,
        capture_output=True,
        text=True,
        timeout=2 * LIMIT_S,
        check=False,
    )


@pytest.mark.process
def test_the_command_takes_what_either_library_signs(tmp_path: Path, javascript: Ask) -> None:
    body, at = BODIES["beyond ASCII"], now()
    given = {"secret": SECRET, "id": "evt_1", "timestamp": at, "body": body}
    theirs = {
        "python": Webhook(SECRET).sign("evt_1", datetime.fromtimestamp(at, UTC), body),
        "javascript": javascript([{"way": "sign", **given}])[0],
    }
    for signature in theirs.values():
        assert (
            reelhook_verify(tmp_path, signature, body, at, REELHOOK_SECRET=SECRET).returncode == 0
        )
        refused = reelhook_verify(tmp_path, signature, body, at, REELHOOK_SECRET=OTHER)
        assert (refused.returncode, "no_match" in refused.stderr) == (1, True)


@pytest.mark.process
def test_the_command_takes_v1a_by_the_public_key_alone(tmp_path: Path) -> None:
    body, at = BODIES["plain"], now()
    signature = sign(
        [SECRET], event_id="evt_1", timestamp=at, body=body.encode(), ed25519_keys=[PRIVATE]
    )
    for key, code in ((public_key(PRIVATE), 0), (public_key(new_private_key(bytes(32))), 1)):
        found = reelhook_verify(tmp_path, signature, body, at, "--public-key", key)
        assert found.returncode == code, found.stderr
    nothing = reelhook_verify(tmp_path, signature, body, at)
    assert (nothing.returncode, "--public-key" in nothing.stderr) == (2, True)
