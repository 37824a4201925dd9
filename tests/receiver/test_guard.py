"""The address table, the rules for URLs, and the two hooks."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from aiohttp import AsyncResolver
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from receiver.delivery.guard import (
    BlockedAddress,
    ConnectionBlocked,
    Guard,
    GuardedResolver,
    HostUnreadable,
    Network,
    UrlRefused,
    as_written,
    guarded_socket,
)
from receiver.delivery.ourselves import Origin
from receiver.errors import Invalid

EVERYTHING: list[Network] = [ip_network("0.0.0.0/0"), ip_network("::/0")]
LOOPBACK: list[Network] = [ip_network("127.0.0.0/8"), ip_network("::1")]
OPEN, CLOSED = Guard(EVERYTHING), Guard()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def allowed(guard: Guard, address: str) -> bool:
    try:
        guard.check_address(address)
    except BlockedAddress:
        return False
    return True


def words(text: str) -> list[str]:
    return text.split()


PUBLIC = words("""
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0
169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0
198.17.255.255 198.20.0.0 223.255.255.255 2001:200::1 2606:4700:4700::1111 2a00:1450::1
2000:: 3ffe::1 ::ffff:8.8.8.8
""")

DENIED = words("""
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.254
172.16.0.1 172.31.255.255 192.0.0.1 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1 192.168.0.1
192.175.48.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255
240.0.0.1 255.255.255.255 :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:10.0.0.1
64:ff9b::7f00:1 64:ff9b::8.8.8.8 64:ff9b:1::1 100::1 2001::1 2001:20::1 2001:1ff::1 2001:db8::1
2002:7f00:1:: 2002:808:808:: 3fff::1 2620:4f:8000::1 fc00::1 fd00::1 fec0::1 ff02::1 5f00::1
4000::1 8000::1 ::1%lo
""")

NEVER = words("""
169.254.169.254 169.254.0.1 169.254.170.2 168.63.129.16 100.100.100.200 192.0.0.192 fe80::1
fe80::1%lo fe80::a9fe:a9fe%25eth0 febf::1 fd00:ec2::254 fd00:ec2::23 fd20:ce::254 fd00:42::42
fd00:a9fe:a9fe::1 ::ffff:169.254.169.254 ::ffff:a9fe:a9fe 64:ff9b::a9fe:a9fe ::169.254.169.254
64:ff9b:1::a9fe:a9fe 2002:a9fe:a9fe::1 ::ffff:168.63.129.16
""")

# The table that is asked for, line by line (OWASP, RFC 6890, and the clouds' own services).
V4_TABLE = words("""
0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24
192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24
198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 168.63.129.16/32
""")
V6_TABLE = words("""
::/3 ::/8 64:ff9b::/96 64:ff9b:1::/48 100::/64 2001::/23 2001:db8::/32 2002::/16 2620:4f:8000::/48
3fff::/20 4000::/2 5f00::/16 8000::/1 fc00::/7 fe80::/10 fec0::/10 ff00::/8
""")

NO_ADDRESS = ["", "localhost", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "1.2.3.4.", "%lo"]


def in_a_table(address: IPv4Address | IPv6Address) -> bool:
    return any(address in ip_network(line) for line in [*V4_TABLE, *V6_TABLE])


@pytest.mark.parametrize("line", [*V4_TABLE, *V6_TABLE])
def test_a_line_of_the_table_holds_from_its_first_address_to_its_last(line: str) -> None:
    network = ip_network(line)
    for address in (network[0], network[-1], network[network.num_addresses // 2]):
        assert not allowed(CLOSED, str(address))
    for number in (int(network[0]) - 1, int(network[-1]) + 1):
        if 0 <= number < 1 << network.max_prefixlen:
            beside = type(network[0])(number)
            assert allowed(CLOSED, str(beside)) != in_a_table(beside)


@given(st.ip_addresses())
def test_what_is_in_no_line_of_the_table_is_public(address: IPv4Address | IPv6Address) -> None:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    assert allowed(CLOSED, str(address)) != in_a_table(mapped or address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    CLOSED.check_address(address)


@pytest.mark.parametrize("address", [*DENIED, *NEVER, *NO_ADDRESS])
def test_everything_else_is_blocked(address: str) -> None:
    with pytest.raises(BlockedAddress) as caught:
        CLOSED.check_address(address)
    assert caught.value.address == address
    assert caught.value.setting == "REELHOOK_ALLOW_NETWORKS"


@pytest.mark.parametrize("address", [*PUBLIC, *DENIED])
def test_the_setting_opens_what_is_private(address: str) -> None:
    OPEN.check_address(address)


@pytest.mark.parametrize("address", [*NEVER, *NO_ADDRESS])
@pytest.mark.parametrize("guard", [OPEN, OPEN.for_plain_http()])
def test_nothing_opens_link_local_and_metadata(guard: Guard, address: str) -> None:
    with pytest.raises(BlockedAddress, match="no setting opens") as caught:
        guard.check_address(address)
    assert caught.value.never


def test_a_refusal_names_the_address_and_the_setting() -> None:
    with pytest.raises(BlockedAddress, match=r"10\.1\.2\.3 .* REELHOOK_ALLOW_NETWORKS can"):
        CLOSED.check_address("10.1.2.3")


def test_only_the_named_networks_open() -> None:
    guard = Guard([ip_network("10.1.0.0/16"), ip_network("fd12::/16")])
    addresses = ["10.1.2.3", "10.2.2.3", "fd12::1", "fd13::1", "8.8.8.8"]
    passing = [address for address in addresses if allowed(guard, address)]
    assert passing == ["10.1.2.3", "fd12::1", "8.8.8.8"]


def test_plain_http_reaches_nothing_but_the_named_networks() -> None:
    guard = Guard([ip_network("10.0.0.0/8")]).for_plain_http()
    assert allowed(guard, "10.1.2.3")
    assert not allowed(guard, "8.8.8.8")
    assert not allowed(guard, "192.168.0.1")


@given(st.ip_addresses(v=4))
def test_ipv4_written_as_ipv6_is_no_way_around(address: IPv4Address) -> None:
    assert allowed(CLOSED, f"::ffff:{address}") == allowed(CLOSED, str(address))


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6, network="2000::/3"))
def test_what_passes_is_nothing_that_python_calls_local(address: IPv4Address | IPv6Address) -> None:
    if allowed(CLOSED, str(address)):
        local = [address.is_loopback, address.is_link_local, address.is_multicast]
        assert not any([*local, address.is_private, address.is_reserved, address.is_unspecified])


@given(st.text(st.characters(codec=None)))
def test_no_text_breaks_the_guard(text: str) -> None:
    assert not allowed(CLOSED, text) or text[0].isalnum() or text[0] == ":"


ACCEPTED = [
    "https://example.com",
    "https://example.com/hooks?a=b&c=%2F",
    "HTTPS://Example.COM:8443/",
    "https://example.com./x",
    "https://a_b.example.com/",
    "https://bücher.example/",
    "https://xn--bcher-kva.example/",
    "https://1.1.1.1/",
    "https://[2606:4700:4700::1111]:443/",
    "https://7-eleven.example/",
    "https://123.example/",
    "https://example.com/@name",
    "https://example.com/ü",
    "https://" + "a" * 63 + ".example/",
    "https://e.example/" + "x" * 2030,
]


@pytest.mark.parametrize("url", ACCEPTED)
def test_urls_that_may_be_registered(url: str) -> None:
    CLOSED.check_url(url)


@pytest.mark.parametrize("url", [*ACCEPTED, "http://[::1]:8080/a?b", "http://[fe80::1%25lo]/"])
def test_what_is_requested_goes_where_the_guard_looked(url: str) -> None:
    written, looked_at = as_written(url), URL(url)
    assert Origin.of(written) == Origin.of(looked_at)
    assert written.raw_host == looked_at.raw_host
    assert written.host_port_subcomponent == looked_at.host_port_subcomponent


REFUSED = [
    ("http://example.com/", "Use https"),
    ("http://1.1.1.1/", "Use https"),
    ("ftp://example.com/", "https://host/path"),
    ("file:///etc/passwd", "https://host/path"),
    ("gopher://example.com/", "https://host/path"),
    ("//example.com/", "https://host/path"),
    ("https:example.com/", "https://host/path"),
    ("https:///x", "https://host/path"),
    ("https://", "https://host/path"),
    ("", "https://host/path"),
    ("https://?x", "https://host/path"),
    ("https://user:pw@example.com/", "user name"),
    ("https://@example.com/", "user name"),
    ("https://public@127.0.0.1/", "user name"),
    ("https://example.com/#top", "fragment"),
    ("https://example.com/#", "fragment"),
    ("https://example.com#@127.0.0.1/", "fragment"),
    ("https://exa mple.com/", "white space"),
    (" https://example.com/", "white space"),
    ("https://example.com/\n", "white space"),
    ("https://example.com/\x00", "white space"),
    ("https://example.com/\u2028", "white space"),
    ("https://127.0.0.1\\@example.com/", "backslashes"),
    ("https://1.1.1.1 &@127.0.0.1#@x/", "white space"),
    ("https://e.example/" + "x" * 2031, "Shorten"),
    ("https://example.com:0/", "port"),
    ("https://example.com:65536/", "port"),
    ("https://example.com:-1/", "port"),
    ("https://example.com:x/", "port"),
    ("https://example.com:80:80/", "port"),
    ("https://127.1/", "four decimal"),
    ("https://127.0.1/", "four decimal"),
    ("https://0/", "four decimal"),
    ("https://2130706433/", "four decimal"),
    ("https://0x7f000001/", "four decimal"),
    ("https://0x7f.1/", "four decimal"),
    ("https://0X7F.1/", "four decimal"),
    ("https://0177.0.0.1/", "four decimal"),
    ("https://017700000001/", "four decimal"),
    ("https://1.1.1.1./", "four decimal"),
    ("https://1.1.1.1.1/", "four decimal"),
    ("https://example.0x/", "four decimal"),
    ("https://127。0。0。1/", "plain characters: 127.0.0.1"),
    ("https://①②⑦.⓪.⓪.①/", "plain characters"),
    ("https://ⓛocalhost/", "plain characters: localhost"),
    ("https://local\u00adhost/", "can't be read"),
    ("https://%31%32%37.0.0.1/", "spelling"),
    ("https://exa%00mple.com/", "spelling"),
    ("https://a..b/", "spelling"),
    ("https://.example.com/", "spelling"),
    ("https://-a.example/", "spelling"),
    ("https://" + "a" * 64 + ".example/", "spelling"),
    ("https://" + "a." * 130 + "example/", "spelling"),
    ("https://xn--/", "can't be read"),
    ("https://[::1/", "can't be read"),
    ("https://[1.2.3.4]/", "can't be read"),
    ("https://127.0.0.1/", "REELHOOK_ALLOW_NETWORKS"),
    ("https://[::1]/", "REELHOOK_ALLOW_NETWORKS"),
    ("https://[::ffff:127.0.0.1]/", "REELHOOK_ALLOW_NETWORKS"),
    ("https://[fe80::1%25lo]/", "no setting opens"),
    ("https://169.254.169.254/latest", "no setting opens"),
    ("https://999.1.1.1/", "not an address"),
    ("https://localhost/", "REELHOOK_ALLOW_NETWORKS"),
    ("https://LOCALHOST./", "REELHOOK_ALLOW_NETWORKS"),
    ("https://app.localhost/", "REELHOOK_ALLOW_NETWORKS"),
    ("https://ip6-localhost/", "REELHOOK_ALLOW_NETWORKS"),
    ("https://metadata.google.internal/", "no setting opens"),
]  # fmt: skip


@pytest.mark.parametrize(("url", "says"), REFUSED)
def test_urls_that_may_not(url: str, says: str) -> None:
    with pytest.raises(UrlRefused, match=says) as caught:
        CLOSED.check_url(url)
    assert isinstance(caught.value, Invalid)
    assert "pw" not in str(caught.value)


def test_a_host_that_can_not_exist_is_told_apart() -> None:
    for url in ("https://a..b/", "https://xn--/", "https://" + "a" * 300 + "/"):
        with pytest.raises(HostUnreadable):
            CLOSED.check_url(url)


@pytest.mark.parametrize(
    ("url", "passes"),
    [
        ("http://localhost:9000/", True),
        ("https://localhost:9000/", True),
        ("http://127.0.0.1:9000/", True),
        ("http://[::1]:9000/", True),
        ("http://sink.cluster.local/", True),
        ("http://1.1.1.1/", False),
        ("http://10.0.0.1/", False),
        ("http://169.254.169.254/", False),
        ("http://metadata.google.internal/", False),
    ],
)
def test_http_is_for_the_named_networks(url: str, passes: bool) -> None:
    guard = Guard(LOOPBACK)
    if passes:
        guard.check_url(url)
    else:
        with pytest.raises(UrlRefused):
            guard.check_url(url)


def test_metadata_is_refused_by_name_even_when_everything_is_open() -> None:
    with pytest.raises(UrlRefused, match="no setting opens"):
        OPEN.check_url("http://169.254.169.254/")


@given(st.text(st.characters(codec=None)) | st.from_regex(r"https?://\S{0,30}"))
def test_urls_are_refused_in_our_words_only(url: str) -> None:
    for guard in (CLOSED, OPEN):
        try:
            guard.check_url(url)
        except UrlRefused as refusal:
            told = str(refusal)
        else:
            told = "accepted"
        assert told


class Answers(AbstractResolver):
    """A resolver with the answers it was given, one list a call."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if not self.answers:
            raise TimeoutError
        return [
            ResolveResult(hostname=host, host=each, port=port, family=family, proto=0, flags=0)
            for each in self.answers.pop(0)
        ]

    async def close(self) -> None:
        raise AssertionError("the guard does not own it")


@pytest.mark.anyio
@pytest.mark.parametrize(
    "answers",
    [["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"], ["8.8.8.8", "fe80::1%lo"], ["::1"]],
)
async def test_a_name_with_one_denied_address_is_refused(answers: list[str]) -> None:
    resolver = GuardedResolver(CLOSED, Answers(answers))
    with pytest.raises(ConnectionBlocked) as caught:
        await resolver.resolve("mixed.example", 443)
    assert caught.value.blocked.address in answers
    await resolver.close()


@pytest.mark.anyio
async def test_every_lookup_is_vetted_anew() -> None:
    resolver = GuardedResolver(CLOSED, Answers(["8.8.8.8"], ["10.0.0.1"]))
    assert [each["host"] for each in await resolver.resolve("rebinding.example")] == ["8.8.8.8"]
    with pytest.raises(ConnectionBlocked, match=r"10\.0\.0\.1"):
        await resolver.resolve("rebinding.example")


@pytest.mark.anyio
async def test_silent_name_servers_are_an_oserror() -> None:
    with pytest.raises(OSError, match="name servers"):
        await GuardedResolver(CLOSED, Answers()).resolve("silent.example")


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "app.localhost"])
async def test_the_real_resolver_knows_localhost(name: str) -> None:
    inner = AsyncResolver()
    found = await GuardedResolver(Guard(LOOPBACK), inner).resolve(name, 80)
    await inner.close()
    assert {each["host"] for each in found} <= {"127.0.0.1", "::1"}


def test_no_socket_is_made_for_a_denied_address() -> None:
    make = guarded_socket(CLOSED)
    for family, sockaddr in (
        (socket.AF_INET, ("127.0.0.1", 80)),
        (socket.AF_INET6, ("fe80::1%lo", 80, 0, 1)),
    ):
        with pytest.raises(ConnectionBlocked):
            make((family, socket.SOCK_STREAM, 0, "", sockaddr))


def test_a_socket_is_made_for_an_allowed_one() -> None:
    make = guarded_socket(CLOSED)
    with make((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("8.8.8.8", 80))) as made:
        assert made.family is socket.AF_INET
