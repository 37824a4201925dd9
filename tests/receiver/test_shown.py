"""What may be shown of text that strangers wrote."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.callbacks import read
from receiver.shown import inert, readable, redact, without_addresses
from receiver.tokens import Source, TokenBox, webhook_url
from tests.make import KEY, TASK, claims, failure, success, wrapped

TAGS = {"projectId": "proj_789"}
TOKEN = TokenBox([KEY]).mint(claims(tags=TAGS, expected=100, source=Source.SUBMIT))
URL = webhook_url("https://hooks.example.com", "runware", TOKEN, TAGS)
OTHERS = base64.urlsafe_b64encode(b'{"v":1,"file":"a.mp4"}').decode() + "." + "s" * 43
STATIC = "a-static-key-for-consoles-0123456789"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (URL, "https://hooks.example.com/webhooks/runware?sig=[redacted]&projectId=proj_789"),
        (f"({TOKEN})", "([redacted])"),
        (f"{TOKEN} {TOKEN}", "[redacted] [redacted]"),
        (f"%3Fsig%3D{TOKEN}%26a", "%3Fsig%3D[redacted]%26a"),
        (f"sig%3D{TOKEN.replace('.', '%2E')}&", "sig%3D[redacted]&"),
        (f"x{TOKEN}", "x[redacted]"),
        (f"eyJ2Ijo{TOKEN}", "eyJ2Ijo[redacted]"),
        (f"https://h/webhooks/runware?a=b&apiKey={STATIC}&c=d", "https://h/webhooks/runware?a=b&apiKey=[redacted]&c=d"),
        (f'"https:\\/\\/h?apiKey={STATIC}"', '"https:\\/\\/h?apiKey=[redacted]"'),
        (f"%3FapiKey%3D{STATIC}%26c", "%3FapiKey=[redacted]%26c"),
    ],
)  # fmt: skip
def test_a_credential_of_ours_is_not_shown(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "eyJ2Ijo",
        "eyJ2Ijo.mp4",
        f"https://cdn.example/a.mp4?token={OTHERS}",
        TOKEN.partition(".")[0],
        "https://account.blob.example/video.mp4?se=2026&sig=Zm9vYmFyYmF6Zm9vYmFyYmF6Zm9vYmFyYmF6",
        '{"apiKey": "theirs"}',
    ],
)
def test_what_opens_nothing_of_ours_is_shown_as_it_is(text: str) -> None:
    assert redact(text) == text


@pytest.mark.timeout(60)  # a search that starts over within a run of characters takes hours
@pytest.mark.parametrize(
    "part", [TOKEN[:16], TOKEN[:16] + ".", "eyJ2Ijo", "apiKey=", TOKEN[:16] + "%2E", "apiKey%3D"]
)
def test_no_text_takes_long_to_search(part: str) -> None:
    assert redact(part * 200_000)


@pytest.mark.parametrize(
    ("body", "text", "exact"),
    [
        (b'{"a": "\xc3\xa4\x1b[31m"}', '{"a": "ä\x1b[31m"}', True),
        (b"\xff\x00{", "\\xff\x00{", False),
        (rb"\xff", "\\xff", True),
        (b"\xed\xa0\x80", "\\xed\\xa0\\x80", False),
        (b"\xef\xbb\xbf{}", "\ufeff{}", True),
        (TOKEN.encode(), "[redacted]", False),
    ],
)
def test_a_body_is_text_that_says_whether_it_is_all_that_came(
    body: bytes, text: str, exact: bool
) -> None:
    assert readable(body) == (text, exact)


@given(st.binary())
def test_a_body_that_is_shown_exactly_can_be_had_from_its_text(body: bytes) -> None:
    text, exact = readable(body)
    assert not exact or text.encode() == body


def test_a_terminal_has_nothing_to_act_on() -> None:
    hostile = "a\x1b]0;title\x07\r\x00\x9b31m\u202eb\tä\n"
    assert inert(hostile) == "a\\x1b]0;title\\x07\\r\\x00\\x9b31m\\u202eb\\tä\n"
    assert inert("plain ä") == "plain ä"


@pytest.mark.parametrize("escape", ["", "\\u0065yJ2", "eyJ2\\u0049"])
def test_no_item_carries_a_credential(escape: str) -> None:
    items = [success(1, webhookURL=URL), failure(message=f"no answer from {URL}")]
    body = wrapped(*items)
    if escape:
        body = body.replace(b"eyJ2I", escape.encode() + (b"I" if escape.endswith("2") else b""))
    found, unreadable = read("runware", body, TASK)
    assert unreadable is None
    assert TOKEN[-43:] not in repr(found)
    first, second = (json.loads(item.raw) for item in found)
    assert first == items[0] | {"webhookURL": URL.replace(TOKEN, "[redacted]")}
    assert second["message"].startswith("no answer from https://hooks.example.com/webhooks")
    assert found[1].error is not None
    assert found[1].error.message == second["message"]


def test_a_body_without_one_is_read_as_it_is() -> None:
    found, _ = read("runware", wrapped(success(1, note="eyJ2Ijo", apiKey="x")), TASK)
    assert json.loads(found[0].raw) == success(1, note="eyJ2Ijo", apiKey="x")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("No connection to 10.1.2.3:443: x", "No connection to [redacted]:443: x"),
        ("failed ('192.168.0.1', 8999).", "failed ('[redacted]', 8999)."),
        ("No connection to [::1]:443.", "No connection to [[redacted]]:443."),
        ("fd00:ec2::254 is not public.", "[redacted] is not public."),
        ("fe80::1%eth0, and ::ffff:10.0.0.1.", "[redacted], and [redacted]."),
        ("It ended at 10.1.2.3.", "It ended at [redacted]."),
        ("release 1.2.3, status 500: at 12:30:45", "release 1.2.3, status 500: at 12:30:45"),
        ("999.1.2.3 is none", "999.1.2.3 is none"),
        ("host example.com: no answer", "host example.com: no answer"),
    ],
)
def test_addresses_are_cut_out(text: str, shown: str) -> None:
    assert without_addresses(text) == shown
