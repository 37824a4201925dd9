"""Floor 4, doors: an endpoint as a form: what stands in its fields, and what those say. Pydantic.

Lists are lines of text, so that a form needs no script: `name=value` for filters, `Name: value` for
headers. A name that stands twice among filters has both values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import ValidationError

from receiver.endpoints import EndpointSpec, Signature, as_patterns
from receiver.errors import Invalid, Refusal

Fields = Mapping[str, str]

BLANK: Final[Fields] = {
    "url": "",
    "description": "",
    "event_types": "*",
    "filters": "",
    "headers": "",
    "rate_limit": "",
    "concurrency": "10",
    "schedule": "",
    "v1a": "",
    "ordered": "",
    "project": "",
    "secret": "",
}


def fields_of(endpoint: EndpointSpec) -> Fields:
    """What an endpoint's form has in its fields."""
    filters = [
        f"{name}={value}"
        for name, wanted in endpoint.filters.items()
        for value in as_patterns(wanted)
    ]
    rate = endpoint.rate_limit
    return {
        **BLANK,
        "url": endpoint.url,
        "description": endpoint.description,
        "event_types": ", ".join(endpoint.event_types),
        "filters": "\n".join(filters),
        "headers": "\n".join(f"{name}: {value}" for name, value in endpoint.headers.items()),
        "rate_limit": "" if rate is None else f"{rate:g}",
        "concurrency": str(endpoint.concurrency),
        "schedule": ", ".join(map(str, endpoint.schedule or ())),
        "v1a": "true" if Signature.V1A in endpoint.signatures else "",
        "ordered": "true" if endpoint.ordered else "",
    }


def spec_in(form: Fields) -> dict[str, Any]:
    """What a form's fields say, for the models to judge. Raises Invalid for a line that is none."""
    return {
        "url": form.get("url", "").strip(),
        "description": form.get("description", "").strip(),
        "event_types": _listed(form.get("event_types", "")),
        "filters": _filters(form.get("filters", "")),
        "headers": _headers(form.get("headers", "")),
        "rate_limit": form.get("rate_limit", "").strip() or None,
        "concurrency": form.get("concurrency", "").strip() or 10,
        "schedule": _listed(form.get("schedule", "")) or None,
        "signatures": [Signature.V1, Signature.V1A] if form.get("v1a") else [Signature.V1],
        "ordered": bool(form.get("ordered")),
    }


def _listed(text: str) -> list[str]:
    return [entry.strip() for entry in text.replace("\n", ",").split(",") if entry.strip()]


def _filters(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in _pairs(text, "=", "filters", "tags.team=film"):
        found.setdefault(name, []).append(value)
    return found


def _headers(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in _pairs(text, ":", "headers", "X-Team: film"):
        if name in found:
            raise Invalid(f"The header {name!r} is there twice.", parameter="headers")
        found[name] = value
    return found


def _pairs(text: str, mark: str, parameter: str, example: str) -> Iterator[tuple[str, str]]:
    for line in filter(None, map(str.strip, text.splitlines())):
        name, found, value = line.partition(mark)
        if not found or not name.strip():
            raise Invalid(f"{line[:60]!r} is not a line such as {example}.", parameter=parameter)
        yield name.strip(), value.strip()


def problem_of(error: Refusal | ValidationError) -> tuple[str, str]:
    """The field that an error is about, "" if none, and what it says."""
    if isinstance(error, Refusal):
        parameter = str(error.evidence.get("parameter", ""))
        return parameter.partition(".")[0], str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    return field, f"{field.replace('_', ' ').capitalize()}: {first['msg']}."
