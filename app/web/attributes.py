"""Turns the extra keyword arguments of a macro into HTML attributes.

Macros stay short this way, and any button or link can carry `hx_get`, `aria_label` or `data_refresh`. An attribute that
the content security policy would block in the browser raises an error here, where the traceback names the template.
"""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup, escape


def attributes(values: Mapping[str, object], *skip: str) -> Markup:
    """`{"hx_get": "/x", "hidden": True, "title": None}` → ` hx-get="/x" hidden`. Raises `ValueError` for inline styles
    and event handlers."""
    parts = []
    for key, value in values.items():
        if key in skip or value is None or value is False:
            continue
        name = key.strip("_").replace("_", "-")
        if name == "style" or name.startswith(("on", "hx-on")):
            raise ValueError(f"the content security policy refuses the attribute {name}")
        parts.append(f" {escape(name)}" if value is True else f' {escape(name)}="{escape(value)}"')
    return Markup("".join(parts))  # noqa: S704 - each name and value is escaped above


def hyphenated(values: Mapping[str, object]) -> dict[str, object]:
    """`{"hx_get": "/x"}` → `{"hx-get": "/x"}`, without empty values. WTForms itself converts only aria_ and data_."""
    return {
        key.strip("_").replace("_", "-"): value
        for key, value in values.items()
        if value is not None and value is not False
    }
