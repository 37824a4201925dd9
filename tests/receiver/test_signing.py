"""Standard Webhooks: published vectors, the official library both ways, and hostile input."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from receiver.delivery.signing import (
    SignatureRefused,
    new_private_key,
    new_secret,
    own_secret,
    public_key,
    sign,
    verify,
)

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, AT, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
V1 = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
PRIVATE = (
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
)
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
V1A = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
OTHER = new_secret(bytes(range(32)))


def headers(signature: str = V1, *, at: str = str(AT), event_id: str = ID) -> dict[str, str]:
    return {"webhook-id": event_id, "webhook-timestamp": at, "webhook-signature": signature}


def refused(signature: str = V1, *, now: int = AT, at: str = str(AT), secret: str = SECRET) -> str:
    with pytest.raises(SignatureRefused) as caught:
        verify([secret], headers(signature, at=at), BODY, now=now)
    return caught.value.reason


@pytest.mark.parametrize(
    ("secret", "event_id", "at", "body", "expected"),
    [
        (SECRET, ID, AT, BODY, V1),
        (
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1649367553,
            b'{"email":"test@example.com","username":"test_user"}',
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        ),
    ],
)
def test_published_vectors(secret: str, event_id: str, at: int, body: bytes, expected: str) -> None:
    assert sign([secret], event_id=event_id, timestamp=at, body=body) == expected
    verify([secret], headers(expected, at=str(at), event_id=event_id), body, now=at)


def test_the_published_ed25519_vector_stands_after_v1() -> None:
    signature = sign([SECRET], event_id=ID, timestamp=AT, body=BODY, ed25519_keys=[PRIVATE])
    assert signature == f"{V1} {V1A}"
    assert public_key(PRIVATE) == PUBLIC
    verify([], headers(V1A), BODY, now=AT, public_keys=[PUBLIC])


def test_an_ed25519_signature_of_another_key_is_refused() -> None:
    with pytest.raises(SignatureRefused, match="no signature"):
        verify([], headers(V1A), BODY + b" ", now=AT, public_keys=[PUBLIC])
    with pytest.raises(SignatureRefused, match="no signature"):
        verify([], headers("v1a,AAAA"), BODY, now=AT, public_keys=[PUBLIC])


def test_during_a_rotation_every_secret_signs() -> None:
    signature = sign([OTHER, SECRET], event_id=ID, timestamp=AT, body=BODY)
    assert signature.split(" ")[1] == V1
    for secret in (OTHER, SECRET):
        verify([secret], headers(signature), BODY, now=AT)


@pytest.mark.parametrize(
    "signature",
    [
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OA=",
        "v1,",
        "v1",
        ",",
        "v1,g0hM9SsE",
        "v1,dawfeoifkpqwoekfpqoekf",
        "v1,ü",
        "v1,\udc80",
        V1.replace("v1,", "v2,"),
        V1.replace("v1,", "v1a,"),
        V1 + "," + V1,
    ],
)
def test_signatures_that_do_not_match(signature: str) -> None:
    assert refused(signature) == "no_match"


def test_a_good_signature_among_others_is_found() -> None:
    verify([SECRET], headers(f"v2,abc v1,AAAA {V1} garbage"), BODY, now=AT)


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_each_header_is_needed(missing: str) -> None:
    for value in (None, ""):
        given_headers = headers()
        del given_headers[missing]
        if value is not None:
            given_headers[missing] = value
        with pytest.raises(SignatureRefused) as caught:
            verify([SECRET], given_headers, BODY, now=AT)
        assert caught.value.reason == "missing_header"


def test_header_names_have_no_case() -> None:
    verify([SECRET], {name.title(): value for name, value in headers().items()}, BODY, now=AT)


@pytest.mark.parametrize(
    "at", ["hello", "1e9", "-5", "1614265330.5", " 1614265330", "٣", "9" * 400]
)
def test_timestamps_that_are_no_seconds(at: str) -> None:
    assert refused(at=at) == "bad_timestamp"


def test_the_tolerance_holds_both_ways() -> None:
    for now in (AT - 300, AT + 300):
        verify([SECRET], headers(), BODY, now=now)
    assert refused(now=AT + 301) == "too_old"
    assert refused(now=AT - 301) == "too_new"
    verify([SECRET], headers(), BODY, now=AT + 301, tolerance=301)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "=", "hwsec_AAAA", PUBLIC, PRIVATE, "whsec_A", "ü"]
)
def test_secrets_that_are_none(secret: str) -> None:
    assert refused(secret=secret) == "bad_secret"
    with pytest.raises(SignatureRefused) as caught:
        sign([secret], event_id=ID, timestamp=AT, body=BODY)
    assert caught.value.reason == "bad_secret"
    assert len(secret) < 8 or secret not in str(caught.value)


@pytest.mark.parametrize("secret", [SECRET.removeprefix("whsec_"), f"{SECRET}"])
def test_the_prefix_may_be_missing(secret: str) -> None:
    verify([secret], headers(), BODY, now=AT)


@pytest.mark.parametrize(
    "secret", ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwBr"]
)
def test_the_padding_may_be_missing(secret: str) -> None:
    ours = sign([secret], event_id=ID, timestamp=AT, body=BODY)
    assert ours == Webhook(secret).sign(ID, datetime.fromtimestamp(AT, UTC), BODY.decode())


def test_without_a_secret_nothing_is_signed_or_verified() -> None:
    with pytest.raises(SignatureRefused, match="no secret"):
        sign([], event_id=ID, timestamp=AT, body=BODY)
    with pytest.raises(SignatureRefused, match="no secret"):
        verify([], headers(), BODY, now=AT)


@pytest.mark.parametrize("size", [24, 32, 64])
def test_new_secrets_are_whsec_and_base64(size: int) -> None:
    secret = new_secret(b"\xff" * size)
    assert secret == "whsec_" + b64encode(b"\xff" * size).decode()


@pytest.mark.parametrize("size", [0, 10, 23, 65, 81])
def test_secrets_have_24_to_64_bytes(size: int) -> None:
    with pytest.raises(SignatureRefused, match="24 to 64"):
        new_secret(b"x" * size)


@pytest.mark.parametrize("size", [24, 32, 64])
def test_a_secret_of_ones_own_is_kept_as_every_library_reads_it(size: int) -> None:
    secret = new_secret(bytes(range(size)))
    assert own_secret(secret) == own_secret(secret.rstrip("=")) == secret
    Webhook(own_secret(secret.rstrip("=")))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        "whsec_bm90LXZhbGlkCg==",  # 10 bytes
        new_secret(bytes(64)) + "AAAA",
        "whsec_" + "A" * 108,  # 81 bytes
        new_secret(bytes(32)).removeprefix("whsec_"),
        PUBLIC,
        PRIVATE,
        "hwsec_" + "A" * 32,
        "whsec_" + "!" * 32,
        "whsec_" + "A" * 31 + "ä",
    ],
)
def test_secrets_of_ones_own_that_are_none(text: str) -> None:
    with pytest.raises(SignatureRefused) as caught:
        own_secret(text)
    assert caught.value.reason == "bad_secret"


def test_a_new_private_key_carries_its_public_half() -> None:
    key = new_private_key(bytes(32))
    signature = sign([SECRET], event_id=ID, timestamp=AT, body=BODY, ed25519_keys=[key])
    verify([], headers(signature), BODY, now=AT, public_keys=[public_key(key)])
    with pytest.raises(SignatureRefused, match="32 bytes"):
        new_private_key(bytes(31))


@pytest.mark.parametrize("key", ["whsk_AAAA", "whsk_", "whsk_" + b64encode(bytes(64)).decode()])
def test_private_keys_that_are_none(key: str) -> None:
    with pytest.raises(SignatureRefused) as caught:
        public_key(key)
    assert caught.value.reason == "bad_secret"


def test_public_keys_that_are_none() -> None:
    with pytest.raises(SignatureRefused, match="public key"):
        verify([], headers(V1A), BODY, now=AT, public_keys=["whpk_AAAA"])


def test_ids_of_lone_surrogates_stay_distinct() -> None:
    made = {
        sign([SECRET], event_id=i, timestamp=AT, body=b"") for i in ("a?", "a\udc80", "a\udc81")
    }
    assert len(made) == 3


class TestOracle:
    """The official library agrees, both ways."""

    bodies = st.dictionaries(st.text(), st.text() | st.integers()).map(
        lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    )

    @given(body=bodies, random=st.binary(min_size=24, max_size=64))
    def test_it_accepts_ours(self, body: bytes, random: bytes) -> None:
        secret, now = new_secret(random), int(datetime.now(UTC).timestamp())
        signature = sign(
            [OTHER, secret], event_id="evt_1", timestamp=now, body=body, ed25519_keys=[PRIVATE]
        )
        Webhook(secret).verify(body, headers(signature, at=str(now), event_id="evt_1"))
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(
                body + b" ", headers(signature, at=str(now), event_id="evt_1"), json_parse=False
            )

    @given(body=bodies, random=st.binary(min_size=24, max_size=64))
    def test_we_accept_its(self, body: bytes, random: bytes) -> None:
        secret = new_secret(random)
        signature = Webhook(secret).sign(ID, datetime.fromtimestamp(AT, UTC), body.decode())
        verify([OTHER, secret], headers(signature), body, now=AT)


anything = st.text(st.characters(codec=None)) | st.sampled_from(
    [V1, V1A, SECRET, PUBLIC, str(AT), "v1,"]
)


@given(
    secrets=st.lists(anything, max_size=2),
    given_headers=st.dictionaries(
        anything | st.sampled_from(list(headers())), anything, max_size=5
    ),
    body=st.binary(),
    keys=st.lists(anything, max_size=1),
)
def test_verify_refuses_in_its_own_words_only(
    secrets: list[str], given_headers: dict[str, str], body: bytes, keys: list[str]
) -> None:
    with pytest.raises(SignatureRefused) as caught:
        verify(secrets, given_headers, body, now=AT, public_keys=keys)
    assert caught.value.evidence == {"reason": caught.value.reason}


@given(signature=anything, at=anything, event_id=anything)
def test_hostile_header_values_are_refused_in_our_words(
    signature: str, at: str, event_id: str
) -> None:
    with pytest.raises(SignatureRefused) as caught:
        verify([SECRET], headers(signature, at=at, event_id=event_id), b"other", now=AT)
    assert caught.value.reason != "bad_secret"
