"""Who an endpoint has to be, before it gets a byte."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from datetime import timedelta
from pathlib import Path

import pytest

from receiver.deliveries import Failure
from receiver.delivery.guard import Guard
from receiver.delivery.sender import Sender
from receiver.errors import SettingsRefused
from tests.receiver.sender.remotes import (
    HASTY,
    OK,
    Handler,
    answering,
    canary,
    certificate,
    sent,
    serving,
)

pytestmark = pytest.mark.anyio


async def test_https_with_a_trusted_certificate(tmp_path: Path) -> None:
    context, ca_file = certificate(tmp_path, "sink.example")
    async with serving(answering(OK), tls=context) as port:
        outcome = await sent(f"https://sink.example:{port}/", ca_file=ca_file)
    assert (outcome.status, outcome.failure) == (200, None)


async def test_a_self_signed_certificate_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, ca_file = certificate(tmp_path, "sink.example")
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)  # the environment widens no trust
    async with canary(tls=context) as (port, hits):
        outcome = await sent(f"https://sink.example:{port}/?token=SECRET")
    assert outcome.failure is Failure.TLS
    assert "self-signed" in outcome.detail
    assert hits == []


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (None, "No such file"),
        (b"", "no certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate"),
        (b"\xff" * 100, "no certificate"),
    ],
    ids=["missing", "empty", "broken", "noise"],
)
def test_a_file_of_authorities_that_is_none_is_refused_at_once(
    tmp_path: Path, written: bytes | None, says: str
) -> None:
    file = tmp_path / "ca.pem"
    if written is not None:
        file.write_bytes(written)
    with pytest.raises(SettingsRefused, match=f"REELHOOK_CA_FILE: {file} .*{says}"):
        Sender(Guard(), ca_file=str(file))


async def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    context, ca_file = certificate(tmp_path, "sink.example")
    async with canary(tls=context) as (port, hits):
        outcome = await sent(f"https://other.example:{port}/", ca_file=ca_file)
    assert outcome.failure is Failure.TLS
    assert "other.example" in outcome.detail
    assert hits == []


async def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    context, ca_file = certificate(tmp_path, "sink.example", ended=timedelta(hours=1))
    async with canary(tls=context) as (port, hits):
        outcome = await sent(f"https://sink.example:{port}/", ca_file=ca_file)
    assert outcome.failure is Failure.TLS
    assert "expired" in outcome.detail
    assert hits == []


async def test_an_address_is_a_name_that_has_to_be_in_the_certificate(tmp_path: Path) -> None:
    context, ca_file = certificate(tmp_path, "sink.example")
    for address, failure in (("127.0.0.9", None), ("127.0.0.8", Failure.TLS)):
        async with serving(answering(OK), address, tls=context) as port:
            outcome = await sent(f"https://{address}:{port}/", ca_file=ca_file)
        assert outcome.failure is failure


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_old_versions_of_tls_are_refused(tmp_path: Path, version: ssl.TLSVersion) -> None:
    context, ca_file = certificate(tmp_path, "sink.example")
    context.set_ciphers("ALL:@SECLEVEL=0")  # the server would speak it, so that we have to refuse
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = version
    async with canary(tls=context) as (port, hits):
        outcome = await sent(f"https://sink.example:{port}/", ca_file=ca_file)
    assert outcome.failure is Failure.TLS
    assert hits == []


async def test_http_on_a_tls_port_is_a_tls_failure() -> None:
    async with serving(answering_at_once(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        outcome = await sent(f"https://127.0.0.1:{port}/?token=SECRET")
    assert outcome.failure is Failure.TLS


def answering_at_once(data: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await reader.read()

    return handle


async def test_a_handshake_that_hangs_is_a_timeout() -> None:
    async with serving(stalled_from_the_start) as port:
        outcome = await sent(f"https://127.0.0.1:{port}/", deadline_s=HASTY)
    assert outcome.failure is Failure.TIMEOUT


async def stalled_from_the_start(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await asyncio.Event().wait()
