"""Floor 4, doors: the dashboard's own files: style, scripts, icon. Starlette only.

They are read once, at assembly. A page names each by the digest of its content, so that a browser
keeps it for a year and yet never shows a page with the style of another release.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha384
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

STATIC: Final = Path(__file__).parent / "static"
TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
# The build of htmx 4.0.1 that npm has (its package: sha512-oF7JgXhDW9UXCy/k1ZYFUQgzu/rm19ORWPSPNL91
# vPluB2PB9+MV55tyQdH/w7o2EAbTYUG5SDW1R60mdkdqGg==). A file that differs is not taken.
HTMX: Final = "sha384-Qp9rdC8H7EqOoX+nR0P3RPG2Noji+qdwJlGpfzwQJsfOpp3sGwIdSP9xO3+UlEhn"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file; `integrity` is what a page says that it must be (W3C SRI)."""

    body: bytes
    media_type: str
    integrity: str
    url: str


class Assets:
    """The files by name."""

    def __init__(self, folder: Path = STATIC) -> None:
        found = [path for path in sorted(folder.iterdir()) if path.suffix in TYPES]
        self.files: Mapping[str, Asset] = {path.name: _asset(path) for path in found}

    def __getitem__(self, name: str) -> Asset:
        return self.files[name]

    def route(self) -> Route:
        """`/static/{name}`, for whoever asks: the login page needs them too."""
        return Route("/static/{name}", self._file, methods=["GET"])

    async def _file(self, request: Request) -> Response:
        asset = self.files.get(request.path_params["name"])
        if asset is None:
            raise HTTPException(404)
        is_this = request.url.query == asset.url.partition("?")[2]
        headers = {
            "cache-control": "public, max-age=31536000, immutable" if is_this else "no-cache",
            "etag": f'"{asset.integrity[7:23]}"',
            "x-content-type-options": "nosniff",
            "cross-origin-resource-policy": "same-origin",
        }
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return Response(asset.body, headers=headers, media_type=asset.media_type)


def _asset(path: Path) -> Asset:
    body = path.read_bytes()
    digest = sha384(body).digest()
    return Asset(
        body,
        TYPES[path.suffix],
        f"sha384-{b64encode(digest).decode()}",
        f"/static/{path.name}?v={digest.hex()[:16]}",
    )
