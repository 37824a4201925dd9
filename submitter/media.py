"""Floor 2, edges: local files as media inputs, read and encoded. No other I/O.

What a file is, its first bytes say; its name is not asked. UUIDs, URLs, data URIs and base64 are
texts and pass as they are.
"""

from __future__ import annotations

import base64
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from submitter.errors import UnusableMedia
from submitter.rules.media import LARGEST, MEDIA, Format
from submitter.tasks import FileInput

# Media inputs lie no deeper, and what is deeper was not written by hand.
_DEEPEST: Final = 32
_HEAD: Final = 16  # bytes that tell what a file is

_INSTEAD: Final = "Give a public URL of it instead, or upload it and give its UUID."


def inline(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with every local file (Path, LocalFile) read and written as a data URI.

    Files may stand anywhere, also in lists and objects. Reads up to 20 MB a file, so async callers
    use a thread. Raises UnusableMedia.
    """
    return {name: _inline(value, name, 0) for name, value in parameters.items()}


def data_uri(file: FileInput, parameter: str = "a media input") -> str:
    """`data:<type>;base64,…` of an image, a video or a sound. Raises UnusableMedia."""
    path = Path(file).expanduser()
    content = _content(path, parameter)
    found = _format(content)
    if found is None:
        names = ", ".join(each.name for each in MEDIA)
        reason = f"its content is none of {names}. Convert it first."
        raise UnusableMedia(parameter=parameter, path=str(path), reason=reason)
    return f"data:{found.mime};base64,{base64.b64encode(content).decode()}"


def _inline(value: Any, name: str, depth: int) -> Any:
    if isinstance(value, FileInput):
        return data_uri(value, name)
    if depth > _DEEPEST:
        return value
    if isinstance(value, Mapping):
        return {key: _inline(each, f"{name}.{key}", depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_inline(each, f"{name}.{n}", depth + 1) for n, each in enumerate(value)]
    return value


def _content(path: Path, parameter: str) -> bytes:
    try:
        found = path.stat()
        # A device or a pipe may have no end.
        if not stat.S_ISREG(found.st_mode):
            raise UnusableMedia(parameter=parameter, path=str(path), reason="it is not a file.")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        reason = f"it cannot be read ({why}). Check the name and its rights."
        raise UnusableMedia(parameter=parameter, path=str(path), reason=reason) from None
    if len(content) > LARGEST:
        size = f"{found.st_size / 1_000_000:.1f} MB"
        reason = f"it has {size}, and {LARGEST // 1_000_000} MB is the most. {_INSTEAD}"
        raise UnusableMedia(parameter=parameter, path=str(path), reason=reason)
    return content


def _format(content: bytes) -> Format | None:
    head = content[:_HEAD]
    return next((each for each in MEDIA if each.starts(head)), None)
