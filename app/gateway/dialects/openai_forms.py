"""Requests that are forms: fields, all of them texts, and files. Fields that the gateway does not know pass through."""

from __future__ import annotations

from typing import Any

from app.gateway.dialects.base import Asked
from app.gateway.dialects.openai import STEERING, JsonRequest, parse
from app.gateway.errors import bad_request
from app.runtime.forms import Form

LISTS = ("timestamp_granularities", "include", "languages", "keywords", "known_speaker_names",
         "known_speaker_references", "fallback_providers")  # fmt: skip


def asked_of(form: Form, kind: type[JsonRequest]) -> Asked:
    """The request in a form, from which what steers the gateway is taken out. Raises `ApiError` 400."""
    values = values_of(form)
    checked = parse(kind, values, dict.fromkeys(values, b""), strict=False)
    form.fields = [(name, text) for name, text in form.fields if name.removesuffix("[]") not in STEERING]
    size = sum(len(name) + len(text.encode()) for name, text in form.fields)
    return Asked(checked, {}, size, None, form=form)


def values_of(form: Form) -> dict[str, Any]:
    """The fields by name; of a list, which is a field that comes again or is named with brackets, all values."""
    values: dict[str, Any] = {}
    for name, text in form.fields:
        base = name.removesuffix("[]")
        is_list = base != name or base in LISTS
        if is_list and isinstance(values.get(base, []), list):
            values.setdefault(base, []).append(text)
        elif base in values:
            raise bad_request(f"The form names '{base[:100]}' twice.", base[:100])
        else:
            values[base] = text
    return values
