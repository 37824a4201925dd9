"""Local files as media inputs: what is read, encoded and refused."""

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from submitter.errors import UnusableMedia
from submitter.media import data_uri, inline
from submitter.rules import check
from submitter.rules.media import LARGEST, formats, is_media_type
from submitter.tasks import LocalFile, parse_assignments

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 30

# What a file begins with, and the media type that it is sent as.
BEGINNINGS: list[tuple[bytes, str]] = [
    (PNG, "image/png"),
    (b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg"),
    (b"RIFF\x0a\0\0\0WEBPVP8 ", "image/webp"),
    (b"\0\0\0\x14ftypqt  \0\0", "video/quicktime"),
    (b"\0\0\0\x20ftypisom\0\0", "video/mp4"),
    (b"\0\0\n\x20ftypmp42\0\0", "video/mp4"),
    (b"\x1a\x45\xdf\xa3\x01\0", "video/webm"),
    (b"ID3\x04\0", "audio/mpeg"),
    (b"\xff\xfb\x90\x64", "audio/mpeg"),
    (b"RIFF\x24\0\0\0WAVEfmt ", "audio/wav"),
    (b"fLaC\0\0\0\x22", "audio/flac"),
]


@pytest.mark.parametrize(("content", "mime"), BEGINNINGS)
def test_a_file_is_sent_as_what_its_content_is(tmp_path: Path, content: bytes, mime: str) -> None:
    path = tmp_path / "named.anything"
    path.write_bytes(content)
    assert data_uri(path) == f"data:{mime};base64,{base64.b64encode(content).decode()}"
    sort = mime.partition("/")[0]
    assert is_media_type(mime, sort)  # type: ignore[arg-type]
    assert formats(sort)  # type: ignore[arg-type]


def test_files_are_encoded_wherever_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(PNG)
    uri = data_uri(path)
    assignments = ["prompt=a cat", f"inputs.frameImages:=@{path},@{path}", "width=1280"]
    assert inline(parse_assignments(assignments)) == {
        "positivePrompt": "a cat",
        "inputs": {"frameImages": [uri, uri]},
        "width": 1280,
    }
    nested = {"a": ({"b": [path, "text", 1, None]},)}
    assert inline(nested) == {"a": [{"b": [uri, "text", 1, None]}]}
    assert nested["a"][0]["b"][0] is path  # what was given stays as it is


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "cat.png").write_bytes(PNG)
    assert inline({"image": LocalFile("~/cat.png")})["image"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "its content is none of PNG, JPG"),
        (b"<html>not found</html>", "Convert it first"),
        (b"\0\0\0\x18ftypheic\0\0", "its content is none of"),
        (b"\0\0\0\x18ftypavif\0\0", "its content is none of"),
        (b"\0\0\0\x18ftypM4A \0\0", "its content is none of"),
        (b"GIF89a", "its content is none of"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(content)
    with pytest.raises(UnusableMedia) as caught:
        inline({"inputs": {"frameImages": [{"image": path}]}})
    assert reason in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.parameter == "inputs.frameImages.0.image"
    assert caught.value.code == "unusable_media"


def test_a_file_may_have_twenty_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(PNG)
    os.truncate(path, LARGEST)
    assert len(data_uri(path)) > LARGEST * 4 // 3
    os.truncate(path, LARGEST + 100_000)
    with pytest.raises(UnusableMedia) as caught:
        data_uri(path, "image")
    assert "it has 20.1 MB, and 20 MB is the most" in str(caught.value)
    assert "public URL" in str(caught.value)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(UnusableMedia, match="it is not a file"):
            data_uri(tmp_path / name)


@pytest.mark.parametrize("name", ["missing.png", "a\0b.png", "x" * 5000])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnusableMedia, match="it cannot be read") as caught:
        data_uri(LocalFile(str(tmp_path / name)), "image")
    assert "Check the name" in str(caught.value)


def test_what_is_encoded_passes_the_rules(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(PNG)
    whole: dict[str, Any] = {"positivePrompt": "a cat", "inputs": {"frameImages": [path]}}
    assert check("runware", "pixverse:1@2", inline(whole)) == []


def test_depth_does_no_harm() -> None:
    deep: Any = []
    for _ in range(50_000):
        deep = [deep]
    assert list(inline({"a": deep})) == ["a"]
