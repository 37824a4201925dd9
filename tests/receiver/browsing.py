"""A browser without a screen: its cookies, its headers, and the forms that it fills in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser

import httpx

from tests.doubles import ADMIN_TOKEN, PUBLIC_URL, Assembled

SAME = {"sec-fetch-site": "same-origin"}


class Form(HTMLParser):
    """The fields of the form that leads to `action`."""

    def __init__(self, action: str) -> None:
        super().__init__()
        self.action = action
        self.fields: dict[str, str] = {}
        self._within = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a field."""
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._within = found.get("action") == self.action
        elif tag == "input" and self._within:
            self.fields[found["name"]] = found.get("value", "")


def form_in(page: str, action: str) -> dict[str, str]:
    """The hidden fields of a form on a page."""
    form = Form(action)
    form.feed(page)
    assert form.fields, f"there is no form for {action}"
    return form.fields


def browsing(receiver: Assembled, url: str = PUBLIC_URL) -> httpx.AsyncClient:
    """A browser that nobody has logged in with."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(receiver.door), base_url=url, headers=SAME
    )


@asynccontextmanager
async def logged_in(receiver: Assembled) -> AsyncIterator[httpx.AsyncClient]:
    """A browser with a session."""
    async with browsing(receiver) as browser:
        answer = await browser.post("/login", data={"token": ADMIN_TOKEN})
        assert answer.status_code == 303
        yield browser


async def send(browser: httpx.AsyncClient, page: str, action: str, **fields: str) -> httpx.Response:
    """Fill in a form that stands on a page, and send it."""
    found = (await browser.get(page)).text
    return await browser.post(action, data={**form_in(found, action), **fields})


async def token_of(receiver: Assembled, **asked: str) -> tuple[str, str]:
    """An API token: its id and its text."""
    found = (await receiver.client.post("/v1/api-tokens", json={"name": "film", **asked})).json()
    return found["id"], found["token"]


@asynccontextmanager
async def holding(receiver: Assembled, token: str) -> AsyncIterator[httpx.AsyncClient]:
    """A browser of somebody who has logged in with a token."""
    async with browsing(receiver) as found:
        assert (await found.post("/login", data={"token": token})).status_code == 303
        yield found
