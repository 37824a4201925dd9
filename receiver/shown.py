"""Floor 0, nouns: text that strangers wrote, made fit to be shown and passed on. Pure.

A platform may echo the webhookURL that it was given, so a body can hold a credential of ours. Its
bytes are kept as they came; what is read out of them, told downstream or printed is not.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final

REDACTED: Final = "[redacted]"

# A webhook token: base64url of claims, which begin with {"v":1,"j":" as no other service's would,
# then a signature. A part takes all it can and gives nothing back, so that no text makes the search
# quadratic.
_BEGIN: Final = "eyJ2Ijo"
_TOKEN: Final = re.compile(rf"{_BEGIN}\wLCJqIjoi[\w-]*+(?:(?:\.|%2[eE])[\w-]{{16,}}+)?", re.ASCII)
_KEY: Final = re.compile(r"""apiKey(?:=[^&\s"'\\<>]+|%3[dD][^&%\s"'\\<>]+)""")


def carries_credential(text: str) -> bool:
    """Whether a token or a static key may stand in a text; a quick look, for every callback."""
    return _BEGIN in text or "apiKey" in text


def redact(text: str) -> str:
    """The text without webhook tokens and the values of `apiKey=`."""
    if not carries_credential(text):
        return text
    return _KEY.sub(f"apiKey={REDACTED}", without_tokens(text))


def without_tokens(text: str) -> str:
    """The text without webhook tokens; other people's `apiKey=` may stand in what they wrote."""
    return _TOKEN.sub(_without_token, text) if _BEGIN in text else text


def _without_token(found: re.Match[str]) -> str:
    claims_alone = "." not in found[0] and "%" not in found[0]  # which open nothing
    return found[0] if claims_alone else REDACTED


# What may be an IPv4 or IPv6 address, a zone included; `ipaddress` decides.
_ADDRESS: Final = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]+(?:%\w+)?)(?![\w])"
)


def without_addresses(text: str) -> str:
    """The text without IP addresses: what a name resolved to is its network's own."""
    return _ADDRESS.sub(_without_address, text)


def _without_address(found: re.Match[str]) -> str:
    address = found[0].rstrip(".:")
    try:
        ip_address(address)
    except ValueError:
        return found[0]
    return REDACTED + found[0][len(address) :]


def readable(body: bytes) -> tuple[str, bool]:
    """A body as text without credentials, and whether that is exactly what came."""
    text = body.decode("utf-8", "backslashreplace")
    shown = redact(text)
    return shown, shown.encode() == body


def inert(text: str) -> str:
    """The text with what a terminal would act on escaped; line ends stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
