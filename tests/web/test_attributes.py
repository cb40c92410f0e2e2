"""Spare arguments of macros as HTML attributes: only what is set, always escaped, nothing that the policy refuses."""

from __future__ import annotations

import pytest

from app.web.attributes import attributes


def test_attributes_the_policy_would_refuse_are_refused() -> None:
    assert (
        attributes({"hx_get": "/x", "hidden": True, "title": None, "data_x": '"'})
        == ' hx-get="/x" hidden data-x="&#34;"'
    )
    for name in ("style", "onclick", "hx_on_click"):
        with pytest.raises(ValueError, match="refuses"):
            attributes({name: "x"})
