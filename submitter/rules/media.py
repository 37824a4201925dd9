"""The kinds of media that may be sent, as data (floor 1, pure).

Source: the video inference reference, at frameImages, referenceVideos and inputAudios; the limit of
20 MB is that of the provider page of PixVerse for images.
"""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

# MB as platforms count them. For videos and sound no page names a limit: ours is the same.
LARGEST = 20_000_000

Sort: TypeAlias = Literal["image", "video", "audio"]


@dataclass(frozen=True, slots=True)
class Format:
    """A file format: its name, its media type first among those in use, and how it begins."""

    sort: Sort
    name: str
    mimes: tuple[str, ...]
    head: re.Pattern[bytes]

    @property
    def mime(self) -> str:
        return self.mimes[0]

    def starts(self, head: bytes) -> bool:
        return self.head.match(head) is not None


def _format(sort: Sort, name: str, mimes: str, head: bytes) -> Format:
    types = tuple(f"{sort}/{mime}" for mime in mimes.split())
    return Format(sort, name, types, re.compile(head, re.DOTALL))


MEDIA: tuple[Format, ...] = (
    _format("image", "PNG", "png", rb"\x89PNG\r\n\x1a\n"),
    _format("image", "JPG", "jpeg jpg", rb"\xff\xd8\xff"),
    _format("image", "WEBP", "webp", rb"RIFF.{4}WEBP"),
    _format("video", "MOV", "quicktime mov", rb".{4}ftypqt  "),
    # The same beginning has photos (HEIC, AVIF) and sound (M4A), which nobody takes.
    _format("video", "MP4", "mp4", rb".{4}ftyp(?!hei|hev|mif1|msf1|avi[fs]|M4[ABP]|crx)"),
    _format("video", "WEBM", "webm", rb"\x1a\x45\xdf\xa3"),
    _format("audio", "MP3", "mpeg mp3", rb"ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]"),
    _format("audio", "WAV", "wav x-wav wave vnd.wave", rb"RIFF.{4}WAVE"),
    _format("audio", "FLAC", "flac x-flac", rb"fLaC"),
)


def formats(sort: Sort) -> tuple[str, ...]:
    """The names of the formats of a sort."""
    return tuple(each.name for each in MEDIA if each.sort == sort)


def is_media_type(mime: str, sort: Sort) -> bool:
    """Whether a media type is one of a sort's formats."""
    return any(each.sort == sort and mime.lower() in each.mimes for each in MEDIA)
