"""The signed URL: who may mint it, and that nothing else opens the door."""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import nullcontext
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from itsdangerous import Signer, TimestampSigner, URLSafeSerializer

from receiver.clock import DAY, HOUR, SECOND
from receiver.errors import Invalid, SettingsRefused, TokenExpired, TokenRefused
from receiver.tokens import (
    DEFAULT_PROJECT,
    LEEWAY,
    MAX_QUERY,
    MAX_TOKEN,
    REMEMBERED,
    WEBHOOK_SALT,
    Claims,
    Source,
    StrictSigner,
    TokenBox,
    _digest,
    check_keys,
    check_tags,
    default_expiry,
    digest_tags,
    webhook_url,
)
from tests.doubles import START
from tests.make import KEY, OLD_KEY, OTHER, TASK, claims

BOX = TokenBox([KEY])
TAGS = {"projectId": "proj_789", "team": "a/b c", "umlaut": "ä+"}
TAGGED = BOX.mint(claims(tags=TAGS))
PLAIN = BOX.mint(claims())
PAIRS = st.lists(st.tuples(st.text(), st.text()), max_size=4)


def verified(token: str, now: int = START, **changes: Any) -> Claims:
    box: TokenBox = changes.get("box", BOX)
    tags = changes.get("tags", {})
    pairs = tags if isinstance(tags, list) else list(tags.items())
    return box.verify(token, platform=changes.get("platform", "runware"), tags=pairs, now=now)


def refused(token: str, **changes: Any) -> str:
    """The reason; the one error there may be is TokenRefused, and no expiry."""
    with pytest.raises(TokenRefused) as caught:
        verified(token, **changes)
    assert caught.type is TokenRefused
    assert caught.value.status == 401
    return str(caught.value.evidence["reason"])


def payload_of(token: str) -> bytes:
    body = token.partition(".")[0]
    return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))


def test_a_token_gives_back_the_claims_it_was_minted_of() -> None:
    for source in (Source.CALLBACK, Source.POLL, Source.SUBMIT):
        minted = claims(source=source, tags=TAGS, expected=4, project="film")
        assert verified(BOX.mint(minted), tags=TAGS) == minted


def test_a_token_is_small_and_needs_no_escaping_in_a_url() -> None:
    token = BOX.mint(claims(project="p" * 64, expected=100, tags=TAGS))
    assert len(token) <= MAX_TOKEN
    assert quote(token, safe="") == token


def test_claims_that_make_a_token_too_long_are_refused_at_minting() -> None:
    assert len(BOX.mint(claims(project="p" * 144))) == MAX_TOKEN == 512
    with pytest.raises(Invalid) as caught:
        BOX.mint(claims(project="p" * 145))
    assert str(caught.value) == "The token would have 514 bytes, at most 512 are allowed."


def test_a_token_that_an_earlier_release_minted_opens_the_door() -> None:
    # Tasks outlive upgrades, so what is written here may not change within a version.
    minted = claims(tags=TAGS, expected=4, project="film", source=Source.POLL)
    token = (
        "eyJ2IjoxLCJqIjoiQUFFQ0F3UUZCZ2NJQ1FvTERBME9EdyIsInQiOiIyNGNkNWRmZi1jYjgxLTRkYjUtODUwNi1i"
        "NzJhOTQyNWY5ZDEiLCJwIjoicnVud2FyZSIsIm8iOiJmaWxtIiwibiI6NCwicyI6InBvbGwiLCJpIjoxNzkwMDAw"
        "MDAwMDAwLCJlIjoxNzkwMDg2NDAwMDAwLCJoIjoia19aR1dHVHFfMmNMZ1AyWW1iMXROb2VMOExGV2pVRjlsTEJ2"
        "dVZQUlluVSJ9.seMGuVfHTuHPYg98Eu7oud2yofYoNHWHuS5MID5eV0o"
    )
    assert BOX.mint(minted) == token
    assert verified(token, tags=TAGS) == minted
    assert [*Source] == ["callback", "poll", "submit", "deadline"]
    assert DEFAULT_PROJECT == "default"


def test_so_many_tokens_are_remembered_and_no_more() -> None:
    assert TokenBox([KEY])._claims_of.cache_info().maxsize == REMEMBERED == 4_096
    assert _digest.cache_info().maxsize == 1_024


def test_every_key_verifies_and_the_newest_signs() -> None:
    rotated = TokenBox([KEY, OLD_KEY])
    old = TokenBox([OLD_KEY]).mint(claims())
    assert verified(old, box=rotated) == claims()
    assert rotated.mint(claims()) == PLAIN
    assert verified(rotated.mint(claims()), box=BOX) == claims()


def test_a_retired_key_opens_nothing() -> None:
    assert refused(TokenBox([OLD_KEY]).mint(claims())) == "forged"


def test_a_token_of_another_purpose_opens_nothing() -> None:
    payload = PLAIN.partition(".")[0]
    assert refused(StrictSigner([KEY], "reelhook.session.v1").sign(payload).decode()) == "forged"
    assert verified(StrictSigner([KEY], WEBHOOK_SALT).sign(payload).decode()) == claims()


@pytest.mark.parametrize(
    "signer",
    [
        Signer(KEY, salt=WEBHOOK_SALT),
        Signer(KEY, salt=WEBHOOK_SALT, key_derivation="hmac"),
        Signer(KEY, salt=WEBHOOK_SALT, digest_method=hashlib.sha256),
        Signer(KEY, salt=WEBHOOK_SALT, key_derivation="none", digest_method=hashlib.sha256),
        Signer(
            KEY, salt=WEBHOOK_SALT, sep=":", key_derivation="hmac", digest_method=hashlib.sha256
        ),
    ],
    ids=["defaults", "sha1", "concat", "underived", "other-separator"],
)
def test_only_our_own_way_of_signing_counts(signer: Signer) -> None:
    refused(signer.sign(PLAIN.partition(".")[0]).decode())


def test_the_tokens_of_itsdangerous_itself_are_none_of_ours() -> None:
    strict = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
    fields = json.loads(payload_of(PLAIN))
    refused(TimestampSigner(KEY, WEBHOOK_SALT).sign(PLAIN.partition(".")[0]).decode())
    refused(URLSafeSerializer(OLD_KEY, WEBHOOK_SALT, signer_kwargs=strict).dumps(fields))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"not json",
        b'{"v":2}',
        b"\xff\xfe",
        b'{"v":1,"j":"!","t":1}',
        b'{"v":1,"j":"AA","t":"x","p":"runware","o":"d","n":1,"s":"nobody","i":0,"e":0,"h":""}',
    ],
)
def test_a_well_signed_payload_that_is_no_claims_is_refused(payload: bytes) -> None:
    text = base64.urlsafe_b64encode(payload).rstrip(b"=")
    assert refused(StrictSigner([KEY], WEBHOOK_SALT).sign(text).decode()) == "forged"


def test_a_token_holds_for_its_own_platform_alone() -> None:
    assert refused(PLAIN, platform="nanogpt") == "altered"


def test_a_clock_that_is_a_little_off_refuses_nothing() -> None:
    token = BOX.mint(claims(expires_at=START + HOUR))
    assert verified(token, START - LEEWAY).issued_at == START
    assert verified(token, START + HOUR + LEEWAY).issued_at == START


def test_beyond_the_leeway_the_future_is_refused() -> None:
    assert refused(PLAIN, now=START - LEEWAY - 1) == "from_the_future"
    assert LEEWAY == 120 * SECOND


def test_beyond_the_leeway_an_expired_token_says_so_with_its_verified_claims() -> None:
    minted = claims(expires_at=START + HOUR)
    with pytest.raises(TokenExpired) as caught:
        verified(BOX.mint(minted), START + HOUR + LEEWAY + 1)
    assert caught.value.claims == minted
    assert caught.value.status == 410
    assert caught.value.evidence["jti"] == minted.jti.hex()


@pytest.mark.parametrize(
    ("steady", "wall", "refused"),
    [
        (-LEEWAY, -LEEWAY, False),
        (-LEEWAY - 1, -LEEWAY, False),
        (-LEEWAY, -LEEWAY - 1, False),
        (-LEEWAY - 1, -LEEWAY - 1, True),
        (-HOUR, 0, False),
        (0, -HOUR, False),
        (-HOUR, -HOUR, True),
    ],
)
def test_a_token_is_from_the_future_only_by_both_clocks(
    steady: int, wall: int, refused: bool
) -> None:
    expected = pytest.raises(TokenRefused) if refused else nullcontext()
    with expected:
        BOX.verify(PLAIN, platform="runware", tags=(), now=START + steady, wall=START + wall)


@pytest.mark.parametrize(
    ("steady", "wall", "refused"),
    [
        (LEEWAY, LEEWAY, False),
        (LEEWAY + 1, LEEWAY, False),
        (LEEWAY, LEEWAY + 1, False),
        (LEEWAY + 1, LEEWAY + 1, True),
        (HOUR, 0, False),
        (0, HOUR, False),
        (HOUR, HOUR, True),
    ],
)
def test_a_token_has_expired_only_by_both_clocks(steady: int, wall: int, refused: bool) -> None:
    end = START + DAY  # of the token
    expected = pytest.raises(TokenExpired) if refused else nullcontext()
    with expected:
        BOX.verify(PLAIN, platform="runware", tags=(), now=end + steady, wall=end + wall)


def test_an_expired_token_with_altered_tags_is_a_forgery_not_an_expiry() -> None:
    token = BOX.mint(claims(expires_at=START + HOUR, tags=TAGS))
    assert refused(token, now=START + DAY, tags={"projectId": "proj_1"}) == "altered"


def test_the_order_of_tags_is_free() -> None:
    assert verified(TAGGED, tags=list(reversed(TAGS.items()))).task == TASK


@pytest.mark.parametrize(
    ("ours", "theirs"), [("%2F", "%2f"), ("%2F", "/"), ("%20", "+"), ("%C3%A4", "%c3%a4")]
)
def test_a_proxy_may_write_the_same_tags_differently(ours: str, theirs: str) -> None:
    url = webhook_url("https://hooks.example.com", "runware", TAGGED, TAGS)
    assert ours in url
    pairs = parse_qsl(urlsplit(url.replace(ours, theirs)).query, keep_blank_values=True)
    token = next(value for name, value in pairs if name == "sig")
    assert verified(token, tags=[pair for pair in pairs if pair[0] != "sig"]).task == TASK


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"projectId": "proj_789"},
        {**TAGS, "projectId": "proj_788"},
        {**TAGS, "more": ""},
        {**TAGS, "projectid": "proj_789"},
        {**TAGS, "team": "a/b  c"},
        [*TAGS.items(), ("team", "a/b c")],
        [("projectId", "team"), ("proj_789", "a/b c"), ("umlaut", "ä+")],
    ],
)
def test_tags_altered_added_or_left_out_are_a_forgery(tags: Any) -> None:
    assert refused(TAGGED, tags=tags) == "altered"


@pytest.mark.parametrize("text", ["", ".", "a", "a.b", "a.b.c", "." * 5_000, "ä.b", "\ud800.b"])
def test_what_is_no_token_is_refused(text: str) -> None:
    refused(text)


def test_a_token_that_is_too_long_is_refused_before_any_crypto() -> None:
    assert refused(PLAIN + "A" * 100_000) == "malformed"
    assert refused("A" * (MAX_TOKEN - 2) + ".A") == "forged"
    assert refused("A" * (MAX_TOKEN - 1) + ".A") == "malformed"


@pytest.mark.parametrize("tail", ["=", "==", "$$$$", " ", "\n", "%", ".", ".x", "\x00", "é"])
def test_nothing_may_follow_a_token(tail: str) -> None:
    refused(PLAIN + tail)
    refused(tail + PLAIN)


def test_no_other_last_character_verifies() -> None:
    # base64 has spare bits: with itsdangerous alone three of these would open the door.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=$"
    for character in alphabet.replace(PLAIN[-1], ""):
        assert refused(PLAIN[:-1] + character) == "forged"


@given(st.integers(0, len(TAGGED) - 1), st.characters())
def test_any_change_of_any_character_is_a_forgery(place: int, character: str) -> None:
    assume(TAGGED[place] != character)
    refused(TAGGED[:place] + character + TAGGED[place + 1 :], tags=TAGS)


@given(st.integers(0, len(TAGGED)), st.text(min_size=1, max_size=4))
def test_any_insertion_is_a_forgery(place: int, text: str) -> None:
    refused(TAGGED[:place] + text + TAGGED[place:], tags=TAGS)


@given(st.integers(0, len(TAGGED)), st.integers(1, 40))
def test_any_omission_is_a_forgery(place: int, count: int) -> None:
    shorter = TAGGED[:place] + TAGGED[place + count :]
    assume(shorter != TAGGED)
    refused(shorter, tags=TAGS)


@given(PAIRS)
def test_any_other_tags_are_a_forgery(pairs: list[tuple[str, str]]) -> None:
    assume(sorted(pairs) != sorted(TAGS.items()))
    assert refused(TAGGED, tags=pairs) == "altered"


@given(PAIRS, st.randoms(use_true_random=False))
def test_tags_are_bound_whatever_they_are_and_whatever_their_order(
    pairs: list[tuple[str, str]], random: Any
) -> None:
    token = BOX.mint(claims(tags=digest_tags(pairs)))
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert verified(token, tags=shuffled).task == TASK


@given(st.text(), PAIRS)
def test_random_text_is_refused_and_raises_nothing_else(
    text: str, pairs: list[tuple[str, str]]
) -> None:
    refused(text, tags=pairs)


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_random_base64_is_refused_and_raises_nothing_else(payload: bytes, sig: bytes) -> None:
    parts = (base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (payload, sig))
    refused(".".join(parts))


def test_the_task_of_a_token_can_not_be_swapped_for_another() -> None:
    body, _, signature = PLAIN.partition(".")
    other = payload_of(PLAIN).replace(TASK.encode(), OTHER.encode())
    swapped = base64.urlsafe_b64encode(other).decode().rstrip("=")
    assert swapped != body
    assert refused(f"{swapped}.{signature}") == "forged"


def test_keys_must_be_there_and_long_enough_to_guess_nothing() -> None:
    with pytest.raises(SettingsRefused) as missing:
        check_keys([])
    with pytest.raises(SettingsRefused) as short:
        TokenBox([KEY, "k" * 31])
    assert str(missing.value) == (
        "REELHOOK_SIGNING_KEYS is not set. Make one with `reelhook keys new`."
    )
    assert str(short.value) == (
        "A key in REELHOOK_SIGNING_KEYS has 31 characters, at least 32 are needed. Make one with"
        " `reelhook keys new`."
    )
    check_keys(["k" * 32])


def test_a_refusal_never_says_the_key_or_the_token() -> None:
    with pytest.raises(SettingsRefused) as short:
        check_keys(["secret-but-short"])
    assert "secret-but-short" not in str(short.value)
    with pytest.raises(TokenRefused) as caught:
        verified(PLAIN + "=")
    assert PLAIN not in f"{caught.value!r} {caught.value.evidence}"


def test_the_default_expiry_outlives_the_give_up() -> None:
    assert default_expiry(START, None) == START + DAY
    assert default_expiry(START, START + HOUR) == START + DAY
    assert default_expiry(START, START + 3 * DAY) == START + 3 * DAY + HOUR


def test_a_webhook_url_is_made_of_the_public_url_and_decodes_to_its_tags() -> None:
    url = webhook_url("https://hooks.example.com/in/", "runware", TAGGED, TAGS)
    assert url.startswith(f"https://hooks.example.com/in/webhooks/runware?sig={TAGGED}&")
    assert parse_qsl(urlsplit(url).query) == [("sig", TAGGED), *TAGS.items()]
    assert (
        webhook_url("https://h.example/X", "x", "t", {}) == "https://h.example/X/webhooks/x?sig=t"
    )


def test_a_query_that_no_receiver_would_take_is_not_made() -> None:
    room = MAX_QUERY - len(f"sig={PLAIN}&a=")
    assert webhook_url("https://h.example", "runware", PLAIN, {"a": "x" * room})
    with pytest.raises(Invalid) as caught:
        webhook_url("https://h.example", "runware", PLAIN, {"a": "x" * (room + 1)})
    assert str(caught.value) == (
        "The webhookURL's query would have 1025 bytes, 1024 at most. Shorten the tags, or put what"
        " is private or long into metadata."
    )


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"sig": "x"}, "A tag can't be called 'sig': that name carries the credential."),
        ({"apiKey": "x"}, "A tag can't be called 'apiKey': that name carries the credential."),
        ({"": "x"}, "A tag can't be called '': that name carries the credential."),
        ({"a": "\n"}, "The tag 'a' has characters that can't stand in a URL."),
        ({"a\x00": "b"}, "The tag 'a\\x00' has characters that can't stand in a URL."),
        ({"a": "\ud800"}, "The tag 'a' has characters that can't stand in a URL."),
    ],
)
def test_tags_that_can_not_stand_in_a_url_are_invalid(tags: dict[str, str], said: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_tags(tags)
    assert str(caught.value) == said
