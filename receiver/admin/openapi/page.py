"""Floor 4, doors: the API's description as a page to read, without a script. Jinja2 only."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from receiver.admin.openapi.schemas import PLACE
from receiver.problems import MEDIA_TYPE

_FOLDER: Final = Path(__file__).parent
_STYLE: Final = (_FOLDER / "page.css").read_text()
_DIGEST: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_DIGEST}';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}

Schema = Mapping[str, Any]


def rendered(document: Schema) -> str:
    """The page of a description."""
    pages = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"kind": kind_of, "prose": prose, "bounds": bounds_of}
    return pages.get_template("page.html").render(
        info=document["info"],
        style=Markup(_STYLE),  # noqa: S704 - our own file
        groups=_groups(document["paths"]),
        webhooks=document["webhooks"],
        schemas=document["components"]["schemas"],
        problems=_problems(document),
    )


def _groups(paths: Schema) -> Mapping[str, Sequence[Schema]]:
    groups: dict[str, list[Schema]] = {}
    for path, methods in paths.items():
        for method, found in methods.items():
            shown = {"method": method.upper(), "path": path, **found}
            shown["refusals"] = _refusals(found["responses"])
            shown["answers"] = _answers(found["responses"])
            groups.setdefault(found["tags"][0], []).append(shown)
    return dict(sorted(groups.items()))


def _problems(document: Schema) -> Mapping[str, tuple[str, Sequence[str]]]:
    """What each status means, and its codes: those of every route, and those of the door."""
    codes: dict[str, set[str]] = {}
    meanings: dict[str, str] = {}
    door = document["paths"]["/webhooks/{platform}"]["post"]["responses"].values()
    for found in (*document["components"]["responses"].values(), *door):
        if MEDIA_TYPE in found["content"]:
            told = found["content"][MEDIA_TYPE]["schema"]["allOf"][1]["properties"]
            status = str(told["status"]["const"])
            meanings.setdefault(status, found["description"])
            codes.setdefault(status, set()).update(told["code"]["enum"])
    return {status: (meanings[status], sorted(codes[status])) for status in sorted(codes)}


def _refusals(responses: Schema) -> list[str]:
    """The statuses of refusals that are not the same everywhere."""
    everywhere = {"400", "401", "408", "414", "431", "500", "503"}
    return [code for code in responses if code >= "400" and code not in everywhere]


def _answers(responses: Schema) -> list[tuple[str, Schema]]:
    return [(code, found) for code, found in responses.items() if code < "400"]


def prose(text: str) -> Markup:
    """Text with its `code` marked, and what stands between blank lines as paragraphs."""
    parts = re.split(r"`([^`]*)`", text)
    marked = [
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    ]
    return Markup("").join(marked).replace("\n\n", Markup("<br>"))


def kind_of(schema: Schema) -> Markup:
    """What a value is, in words, with links to the objects that have a section."""
    return Markup(" or ").join(_kinds(schema))


def _kinds(schema: Schema) -> Iterator[Markup]:
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(PLACE)
        yield Markup('<a href="#{0}">{0}</a>').format(name)
    elif "anyOf" in schema:
        for one in schema["anyOf"]:
            yield from _kinds(one)
    elif "enum" in schema or "const" in schema:
        for word in schema.get("enum", [schema.get("const")]):
            yield Markup("<code>{}</code>").format(word)
    else:
        yield _plain(schema)


def _plain(schema: Schema) -> Markup:
    kind = schema.get("type", "anything")
    if kind == "array":
        return Markup("list of {}").format(kind_of(schema.get("items", {})))
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return Markup("text by name, each {}").format(kind_of(schema["additionalProperties"]))
    words = {"string": "text", "boolean": "true or false", "null": "null", "object": "object"}
    formats = {"date-time": "time", "uri": "URI"}
    return escape(formats.get(schema.get("format", ""), words.get(kind, kind)))


_BOUNDS: Final[Mapping[str, str]] = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "maxItems": "at most {}",
    "maxProperties": "at most {}",
    "pattern": "like `{}`",
    "default": "default `{}`",
}


def bounds_of(schema: Schema) -> str:
    """The bounds of a value, and what it is when it is not given."""
    shown = [schema, *(one for one in schema.get("anyOf", ()) if one.get("type") != "null")]
    said = [
        words.format(_text(part[name]))
        for part in shown
        for name, words in _BOUNDS.items()
        if part.get(name) is not None
    ]
    return "; ".join(said)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)
