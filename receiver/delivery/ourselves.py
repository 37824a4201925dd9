"""Floor 2, edges: what leads back to this receiver, so that no event goes in circles. yarl only.

A URL is ours by its origin (scheme, host, port), an address by the sockets we listen on. What else
leads here, such as another name in front of the same proxy, nobody can tell from inside.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple, Self

from yarl import URL

Address = IPv4Address | IPv6Address

_DISCARD: Final = 9  # any port would do: connecting a datagram socket sends nothing


class Origin(NamedTuple):
    """Scheme, host and port, as RFC 6454 §4 compares them."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: URL) -> Self | None:
        """The origin of a URL with a host; spellings of the same one are the same."""
        host, port = url.raw_host, url.port
        if not host or port is None:
            return None
        return cls(url.scheme, _canonical(host), port)


@dataclass(frozen=True, slots=True)
class Ourselves:
    """Where this receiver is reached: by URL, and at the addresses and ports it listens on."""

    origins: frozenset[Origin] = frozenset()
    sockets: frozenset[tuple[Address, int]] = frozenset()

    @classmethod
    def at(cls, urls: Iterable[str], bound: Iterable[tuple[str, int]] = ()) -> Self:
        """From base URLs and the names of bound sockets (`getsockname()[:2]`)."""
        found = (Origin.of(URL(url)) for url in urls)
        return cls(
            frozenset(origin for origin in found if origin is not None),
            frozenset((as_address(host), port) for host, port in bound),
        )

    def has_origin(self, url: URL) -> bool:
        """Whether a request to this URL would come back to us."""
        return Origin.of(url) in self.origins

    def listens_on(self, address: Address, port: int) -> bool:
        """Whether we would accept a connection to this address and port."""
        return any(port == own_port and _reaches(address, own) for own, own_port in self.sockets)


NOWHERE: Final = Ourselves()


def as_address(text: str) -> Address:
    """An address without its scope, IPv4 if it is one in IPv6's clothes. Raises ValueError."""
    address = ip_address(text.partition("%")[0])
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _canonical(host: str) -> str:
    try:
        return str(as_address(host))
    except ValueError:
        return host.lower().removesuffix(".")


def _reaches(address: Address, own: Address) -> bool:
    if own.is_unspecified:
        return (own.version == 6 or address.version == 4) and _is_of_this_machine(address)
    return address == own or (address.is_unspecified and own.is_loopback)


def _is_of_this_machine(address: Address) -> bool:
    """Whether a connection to it stays here: the kernel knows, and a list would grow old."""
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), _DISCARD))
        except OSError:
            return False  # no route to it
        return as_address(probe.getsockname()[0]) == address
