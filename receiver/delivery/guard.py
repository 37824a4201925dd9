"""Floor 2, edges: which addresses downstream requests may reach. aiohttp's hooks, nothing else.

Names are decided by the addresses they resolve to, in the connector, at every dial; what is said
about a URL at registration is an early answer and never the defence. Of the two hooks neither is
enough: IP literals skip the resolver, and the socket factory alone would let a name with mixed
answers through on its allowed one.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Network,
    ip_network,
)
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from receiver.delivery.ourselves import NOWHERE, Address, Ourselves, as_address
from receiver.errors import Invalid, ReelhookError

Network = IPv4Network | IPv6Network

SETTING: Final = "REELHOOK_ALLOW_NETWORKS"
LONGEST_URL: Final = 2048


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ip_network(part) for part in text.split())


# Own tables: what ipaddress calls global differs between Python's patch releases.
_V4_DENIED: Final = _networks(
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24"
    " 192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24"
    " 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 168.63.129.16/32"
)
_V6_PUBLIC: Final = IPv6Network("2000::/3")
_V6_DENIED: Final = _networks("2001::/23 2001:db8::/32 2002::/16 3fff::/20 2620:4f:8000::/48")
# Link-local and the metadata services of the clouds: they hand credentials to whoever asks.
_NEVER: Final = _networks(
    "169.254.0.0/16 168.63.129.16/32 100.100.100.200/32 192.0.0.192/32"
    " fe80::/10 fd00:ec2::/32 fd20:ce::254/128 fd00:42::42/128 fd00:a9fe:a9fe::/64"
)
_TRANSLATED: Final = _networks("::/96 64:ff9b::/96 64:ff9b:1::/48")
_6TO4: Final = IPv6Network("2002::/16")

# Only so that a mistake is told at registration; the addresses decide.
_KNOWN_NAMES: Final = {
    "localhost": ("127.0.0.1", "::1"),
    "localhost.localdomain": ("127.0.0.1",),
    "ip6-localhost": ("::1",),
    "ip6-loopback": ("::1",),
    "metadata": ("169.254.169.254",),
    "metadata.google.internal": ("169.254.169.254",),
}

_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f-\xa0\\\u2028\u2029\ufeff]|\s")
_SHAPE: Final = re.compile(r"(https?)://([^/?#]+)", re.ASCII | re.IGNORECASE)
_ALLOWED: Final = r"(?:[\w.~:/@!$&'()*+,;=\[\]-]|%[0-9a-f]{2})"
_TARGET: Final = re.compile(
    rf"https?://[^/?#]+(?P<path>(?:/{_ALLOWED}*)?)(?:\?(?P<query>(?:{_ALLOWED}|\?)*))?",
    re.ASCII | re.IGNORECASE,
)
_HOST: Final = re.compile(r"(?!.*\.\.)[a-z0-9_](?:[a-z0-9._-]{0,251}[a-z0-9_-])?\.?", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_QUAD: Final = re.compile(r"(?:(?:0|[1-9][0-9]{0,2})(?:\.(?!$)|$)){4}", re.ASCII)


class BlockedAddress(ReelhookError):
    """An address that no downstream request may reach; `setting` may open it, unless `never`."""

    code = "blocked_address"

    def __init__(self, address: str, setting: str = SETTING, *, why: str, never: bool) -> None:
        remedy = "which no setting opens" if never else f"{setting} can allow it"
        super().__init__(f"{address} is {why}; {remedy}.", address=address, setting=setting)
        self.address = address
        self.setting = setting
        self.never = never


class OwnAddress(BlockedAddress):
    """This receiver itself: what it sends there would come back as one more event."""

    def __init__(self, address: str) -> None:
        super().__init__(address, why="this receiver itself", never=True)


class UrlRefused(Invalid):
    """A URL that can't be delivered to; the message says what to change."""

    code = "url_refused"


class HostUnreadable(UrlRefused):
    """The host can't be a name or an address, however it is looked up."""


class HostRefused(UrlRefused):
    """The host is one that deliveries must not reach; the message is for those who may allow it."""


class ConnectionBlocked(OSError):
    """What the hooks raise, since aiohttp passes on nothing but OSError; carries `blocked`."""

    def __init__(self, blocked: BlockedAddress) -> None:
        super().__init__(str(blocked))
        self.blocked = blocked


class Guard:
    """The address policy: public addresses, and those of `allow_networks`; never `ourselves`."""

    def __init__(
        self,
        allow_networks: Sequence[Network] = (),
        *,
        public: bool = True,
        ourselves: Ourselves = NOWHERE,
    ) -> None:
        self._allowed = tuple(allow_networks)
        self._public = public
        self._ourselves = ourselves

    def for_plain_http(self) -> Guard:
        """The stricter policy of http: nothing but `allow_networks`."""
        return Guard(self._allowed, public=False, ourselves=self._ourselves)

    def check_address(self, text: str, port: int = 0) -> None:
        """Return if a request may go there. Raises BlockedAddress."""
        address = _parsed(text)
        if _is_never(address):
            raise BlockedAddress(text, why="a link-local or metadata address", never=True)
        if self._ourselves.listens_on(address, port):
            raise OwnAddress(f"{text}, port {port},")
        if any(address in network for network in self._allowed):
            return
        if not self._public:
            raise BlockedAddress(text, why="not to be reached without TLS", never=False)
        if not _is_public(address):
            raise BlockedAddress(text, why="not a public address", never=False)

    def check_url(self, url: str) -> None:
        """Return if a delivery to this URL may be tried. Raises UrlRefused."""
        scheme = _check_shape(url)
        if scheme == "http" and not self._allowed:
            raise UrlRefused(f"Use https; http is for networks that {SETTING} names.")
        host, port = _dialled(url)
        if self._ourselves.has_origin(URL(url)):
            own = OwnAddress(f"{scheme}://{host}:{port}")
            raise HostRefused(f"{host} can't be delivered to: {own}") from own
        guard = self.for_plain_http() if scheme == "http" else self
        guard.check_host(host, port)

    def check_host(self, host: str, port: int = 0) -> None:
        """Return if this host, as it would be dialled, may be tried. Raises UrlRefused."""
        if ":" in host or _QUAD.fullmatch(host):
            addresses: tuple[str, ...] = (host,)
        else:
            _check_name(host)
            addresses = _known_addresses(host)
        found = [self._refusal(address, port) for address in addresses]
        blocked = [refusal for refusal in found if refusal is not None]
        own = [refusal for refusal in blocked if isinstance(refusal, OwnAddress)]
        if own or (blocked and len(blocked) == len(addresses)):
            first = (own or blocked)[0]
            raise HostRefused(f"{host} can't be delivered to: {first}") from first

    def _refusal(self, address: str, port: int) -> BlockedAddress | None:
        try:
            self.check_address(address, port)
        except BlockedAddress as blocked:
            return blocked
        return None


class GuardedResolver(AbstractResolver):
    """Resolves through another resolver, and refuses a name if any of its addresses is denied."""

    def __init__(self, guard: Guard, inner: AbstractResolver, *, timeout_s: float = 5.0) -> None:
        self._guard = guard
        self._inner = inner
        self._timeout_s = timeout_s

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a name, all of them vetted."""
        answers = await self._lookup(host, port, family)
        for answer in answers:
            _vet(self._guard, answer["host"], port)
        return answers

    async def close(self) -> None:
        """Nothing: the inner resolver belongs to whoever made it."""

    async def _lookup(
        self, host: str, port: int, family: socket.AddressFamily
    ) -> list[ResolveResult]:
        # a limit of its own, so that silent name servers are told apart from a silent endpoint
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._inner.resolve(host, port, family)
        except TimeoutError:
            raise OSError(None, "the name servers did not answer in time") from None


def guarded_socket(guard: Guard) -> Callable[[tuple[Any, ...]], socket.socket]:
    """A `socket_factory` for TCPConnector that makes no socket for a denied address."""

    def make(info: tuple[Any, ...]) -> socket.socket:
        family, kind, proto, _, sockaddr = info
        _vet(guard, sockaddr[0], sockaddr[1])
        return socket.socket(family, kind, proto)

    return make


def as_written(url: str) -> URL:
    """A URL to request, byte for byte as somebody wrote it where every byte may stand in a request.

    yarl writes `%2F` in a query as `/` and `[` as `%5B`: reserved characters, so that is another
    URL (RFC 3986 §2.2), and one that carries a signature of its own may not hold any more.
    """
    parsed = URL(url)
    written = _TARGET.fullmatch(url)
    if written is None:
        return parsed
    return URL.build(
        scheme=parsed.scheme,
        host=parsed.host_subcomponent or "",
        port=parsed.explicit_port,
        path=written["path"] or "/",
        query_string=written["query"] or "",
        encoded=True,
    )


def _vet(guard: Guard, address: str, port: int) -> None:
    try:
        guard.check_address(address, port)
    except BlockedAddress as blocked:
        raise ConnectionBlocked(blocked) from blocked


def _parsed(text: str) -> Address:
    try:
        return as_address(text)
    except ValueError:
        raise BlockedAddress(text, why="not an address", never=True) from None


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _V4_DENIED)
    return address in _V6_PUBLIC and not any(address in network for network in _V6_DENIED)


def _is_never(address: Address) -> bool:
    reached = (address, _embedded(address))
    return any(each in network for each in reached if each for network in _NEVER)


def _embedded(address: Address) -> IPv4Address | None:
    """The IPv4 address that a translator or tunnel would take this one to."""
    if isinstance(address, IPv4Address):
        return None
    if address in _6TO4:
        return IPv4Address(int(address) >> 80 & 0xFFFFFFFF)
    if any(address in network for network in _TRANSLATED):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _check_shape(url: str) -> str:
    """The scheme of a URL that every parser reads alike."""
    if len(url) > LONGEST_URL:
        raise UrlRefused(f"Shorten the URL to {LONGEST_URL} characters.")
    if _FORBIDDEN.search(url):
        raise UrlRefused("Remove white space, control characters and backslashes from the URL.")
    shape = _SHAPE.match(url)
    if shape is None:
        raise UrlRefused("Write the URL as https://host/path.")
    if "@" in shape[2]:
        raise UrlRefused("Remove the user name and password; send a header instead.")
    if "#" in url:
        raise UrlRefused("Remove the fragment (from the # on); it is never sent.")
    return shape[1].lower()


def _dialled(url: str) -> tuple[str, int]:
    """The host and port as aiohttp would dial it, since it reads the URL with the same parser."""
    try:
        parsed = URL(url)
        host, readable, port = parsed.raw_host, parsed.host, parsed.port
    except (ValueError, IndexError) as cause:
        raise HostUnreadable("The host or port of the URL can't be read; check both.") from cause
    if not host or not readable:
        raise UrlRefused("The URL needs a host.")
    if not port:
        raise UrlRefused("Use a port between 1 and 65535.")
    if _is_disguised(url, host):
        raise UrlRefused(f"Write the host in plain characters: {host}.")
    return host, port


def _is_disguised(url: str, host: str) -> bool:
    """Whether look-alike characters were folded into an ordinary host."""
    shape = _SHAPE.match(url)
    return shape is not None and not shape[2].isascii() and "xn--" not in host


def _check_name(host: str) -> None:
    if not _HOST.fullmatch(host) or any(len(label) > 63 for label in host.split(".")):
        raise HostUnreadable("The host is not a name that can be looked up; check its spelling.")
    if _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]):
        raise UrlRefused("Write the IPv4 address as four decimal numbers, such as 192.0.2.1.")


def _known_addresses(host: str) -> tuple[str, ...]:
    name = host.removesuffix(".")
    return _KNOWN_NAMES.get("localhost" if name.endswith(".localhost") else name, ())
