"""Floor 5, assembly: what the doctor sees through the network: receiver, public URL, proxies."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from receiver.client import ApiRefused, Client, Unreachable
from receiver.clock import SECOND
from receiver.doctor.findings import Finding, error, ok, warning
from receiver.outside import Seen, look
from receiver.settings import Settings, address_of, listed, read_local
from receiver.tokens import LEEWAY

MAY_DIFFER: Final = 5.0  # seconds between two clocks; a Date has whole ones
ENOUGH_CALLBACKS: Final = 3  # from one private address, to say that nobody else is seen

# Programs that make a machine reachable, by the end of the host names that they give.
TUNNELS: Final[Mapping[str, tuple[str, str]]] = {
    "trycloudflare.com": (
        "a Cloudflare quick tunnel",
        "Its name is another one at each start, so that the URLs of tasks in flight lead nowhere;"
        " it holds streams back and takes 200 requests at once. Use a named tunnel for more than"
        " a trial; `reelhook reconcile` fetches what was missed.",
    ),
    "ngrok-free.app": (
        "ngrok's free plan",
        "It takes few requests a minute. Use a plan with a domain of your own for more than a"
        " trial.",
    ),
    "ngrok.io": ("ngrok", "Without a reserved domain its name is another one at each start."),
    "ngrok.app": ("ngrok", "Without a reserved domain its name is another one at each start."),
    "loca.lt": ("localtunnel", "It shows a page of its own to some who call. Use another one."),
    "lhr.life": ("localhost.run", "Its name changes while it runs. Use a domain of your own."),
    "serveo.net": ("serveo", "It may end at any time. Use a tunnel that is kept up for you."),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the network shows. `remotes`: who sent the latest callbacks; `refused`: why the API let
    us not in; `unready`: why the receiver takes no callbacks."""

    api: Seen
    public: Seen | None = None
    refused: str = ""
    unready: str = ""
    remotes: tuple[str, ...] = ()


async def ask(settings: Settings) -> Facts:
    """What the receiver of the settings and its public URL answer, at the same time."""
    url, token = address_of(settings)
    public = public_url_of(settings)
    looks = [look(url)] + ([look(public)] if public and not is_local(public) else [])
    api, *outside = await asyncio.gather(*looks)
    found = Facts(api, next(iter(outside), None))
    return await _ask_more(found, url, token) if api.is_receiver else found


async def _ask_more(facts: Facts, url: str, token: str) -> Facts:
    ready = await look(url, "/readyz")
    refused, remotes = "", tuple[str, ...]()
    async with Client(url, token) as client:
        try:
            remotes = tuple(one.remote for one in (await client.callbacks(limit=20)).data)
        except (ApiRefused, Unreachable) as fault:
            refused = str(fault)
    return Facts(facts.api, facts.public, refused, ready.reason or "", remotes)


def public_url_of(settings: Settings) -> str:
    """What platforms call: as set, else as the running receiver was started with."""
    return settings.public_url or read_local(settings.data_dir).get("public_url", "")


def is_local(url: str) -> bool:
    """Whether a URL names this machine alone."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def receiver(facts: Facts) -> Iterator[Finding]:
    """Whether the commands reach it, and it works."""
    api = facts.api
    if not api.is_receiver:
        said = api.fault or f"it answers {api.status}"
        text = f"No receiver answers at {api.url} ({said})."
        yield warning("receiver", text, "Start it with `reelhook serve`, or set REELHOOK_URL.")
    elif facts.refused:
        fix = "Set REELHOOK_ADMIN_TOKEN to the token that the receiver was started with."
        yield error("receiver", f"{api.url} does not let us in: {facts.refused}", fix)
    elif facts.unready:
        yield error("receiver", f"It takes no callbacks: {facts.unready}", "Look into its log.")
    else:
        yield ok("receiver", f"{api.url} answers and is ready.")


def clock(facts: Facts) -> Iterator[Finding]:
    """Whether this machine's clock is right, by whoever answered with a date."""
    dates = [seen.ahead_s for seen in (facts.public, facts.api) if seen is not None]
    ahead = next((found for found in dates if found is not None), None)
    if ahead is None:
        yield ok("clock", "There is no other clock to compare it with.")
        return
    side = "ahead of" if ahead > 0 else "behind"
    text = f"This machine's clock is {abs(ahead):,.0f} s {side} that of its public URL."
    fix = "Let NTP set it: tokens and signatures carry the time."
    if abs(ahead) > LEEWAY / SECOND:
        yield error("clock", f"{text} Tokens and signatures are refused.", fix)
    elif abs(ahead) > MAY_DIFFER:
        yield warning("clock", text, fix)
    else:
        yield ok("clock", "It shows the same time as that of the public URL.")


def public_url(settings: Settings, facts: Facts) -> Iterator[Finding]:
    """Whether what platforms call is this very receiver."""
    url, seen = public_url_of(settings), facts.public
    if seen is None:
        text = f"Platforms can't reach {url or 'this machine'}."
        fix = "Set REELHOOK_PUBLIC_URL, or use `reelhook dev --tunnel`; NanoGPT needs none."
        yield warning("public URL", text, fix)
        return
    if urlsplit(url).scheme == "http":
        text = f"{url} is not https: whoever is in between reads the tokens."
        yield warning("public URL", text, "Put TLS in front of it.")
    yield _of_this_receiver(url, seen, facts.api)


def _of_this_receiver(url: str, seen: Seen, api: Seen) -> Finding:
    check, set_it = "public URL", "Set REELHOOK_PUBLIC_URL"
    if seen.fault:
        return error(check, f"{url} does not answer: {seen.fault}.", f"{set_it} to what does.")
    if seen.moved_to:
        fix = f"{set_it} to where that leads; platforms follow no redirect."
        return error(check, f"{url} redirects to {seen.moved_to}.", fix)
    if not seen.is_receiver:
        text = f"{url} answers {seen.status}, and not as a receiver."
        return error(check, text, "Let the proxy pass /healthz and /webhooks/ to it.")
    if not api.is_receiver:
        return warning(check, f"{url} is a receiver; is it this one?", "Start it, then look again.")
    if seen.instance != api.instance:
        text = f"{url} is another receiver: tokens of this one do not open it."
        return error(check, text, f"{set_it} to this one's, or REELHOOK_URL to that one's.")
    return ok(check, f"{url} is this receiver.")


def tunnel(url: str) -> Iterator[Finding]:
    """What is known of the program that makes the receiver reachable."""
    host = urlsplit(url).hostname or ""
    for end, (name, remark) in TUNNELS.items():
        if host == end or host.endswith(f".{end}"):
            yield warning("tunnel", f"{host} is {name}.", remark)
            return
    yield ok("tunnel", "None that is known to have its limits.")


def proxies(settings: Settings, facts: Facts) -> Iterator[Finding]:
    """Whether callbacks come from where they come from."""
    fix = "Set FORWARDED_ALLOW_IPS to the addresses of the proxies in front of it."
    believed = listed(settings.forwarded_allow_ips)
    strangers = [text for text in facts.remotes if not _is_private(text)]
    if "*" in believed and not settings.hosting:
        text = "FORWARDED_ALLOW_IPS=* believes whatever address a client makes up."
        yield warning("proxies", text, fix)
    elif len(facts.remotes) >= ENOUGH_CALLBACKS and not strangers and facts.public is not None:
        text = f"The last {len(facts.remotes)} callbacks all came from {facts.remotes[0]}, it says."
        yield warning("proxies", f"{text} Limits by address then hit everybody.", fix)
    elif settings.hosting and believed == ["127.0.0.1"]:
        text = "The platform's router is in front, and its X-Forwarded-For is not believed."
        yield warning("proxies", text, fix)
    else:
        yield ok("proxies", f"X-Forwarded-For is believed of {', '.join(believed) or 'nobody'}.")


def _is_private(address: str) -> bool:
    try:
        return ip_address(address).is_private
    except ValueError:
        return False
