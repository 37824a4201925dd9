"""A webhookURL that the submitter mints itself is the one that the receiver would have minted."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest

from receiver.clock import DAY
from receiver.errors import Invalid, SettingsRefused
from receiver.tokens import Source, TokenBox
from submitter.tasks import GenerationTask
from submitter.webhook import Minter
from tests.doubles import PUBLIC_URL, START
from tests.make import JTI, KEY, OLD_KEY, TASK, claims

TAGS = {"projectId": "proj_789", "q": "a b&c=d/é"}


def minter(*keys: str, public_url: str = PUBLIC_URL) -> Minter:
    return Minter(
        public_url=public_url,
        keys=keys,
        project="films",
        clock=lambda: START,
        random_bytes=lambda count: JTI[:count],
    )


def task(**changes: object) -> GenerationTask:
    values = {"number_results": 4, "tags": TAGS, **changes}
    return GenerationTask(id=TASK, platform="runware", model="pixverse:1@6", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("source", [Source.CALLBACK, Source.POLL, Source.SUBMIT])
def test_the_url_carries_the_task_and_its_tags(source: Source) -> None:
    url = urlsplit(minter(KEY).url_for(task(), source))
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{PUBLIC_URL}/webhooks/runware"
    (name, token), *tags = parse_qsl(url.query, strict_parsing=True)
    assert name == "sig"
    assert dict(tags) == TAGS
    found = TokenBox([KEY]).verify(token, platform="runware", tags=tags, now=START)
    wanted = claims(project="films", expected=4, source=source, tags=TAGS, expires_at=START + DAY)
    assert found == wanted


def test_the_newest_key_signs() -> None:
    url = urlsplit(minter(KEY, OLD_KEY).url_for(task(tags={})))
    token = dict(parse_qsl(url.query))["sig"]
    assert TokenBox([KEY]).verify(token, platform="runware", tags=(), now=START).task == TASK
    with pytest.raises(Exception, match="ours"):
        TokenBox([OLD_KEY]).verify(token, platform="runware", tags=(), now=START)


def test_without_a_key_nothing_is_signed() -> None:
    with pytest.raises(SettingsRefused):
        minter().url_for(task())


def test_a_tag_that_would_be_a_credential_is_refused() -> None:
    with pytest.raises(Invalid):
        minter(KEY).url_for(task(tags={"sig": "mine"}))


def test_the_keys_are_not_shown() -> None:
    shown = repr(minter(KEY, OLD_KEY))
    assert PUBLIC_URL in shown
    assert KEY not in shown
    assert OLD_KEY not in shown
