"""First calls read the key from the environment, and hold it themselves only where it is shown once."""

from __future__ import annotations

import pytest
from flask import Flask

from app.domain.catalog import CAPABILITIES
from app.pages import snippets


@pytest.mark.parametrize("capability", [*CAPABILITIES, "unheard-of"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_first_call_reads_the_key_from_the_environment_or_holds_it(app: Flask, capability: str, stream: bool) -> None:
    with app.test_request_context("/"):
        reading = snippets.first_call("vendor/one", [capability], stream=stream)
        holding = snippets.first_call("vendor/one", [capability], "sk-secret", stream=stream)
    assert [pane.label for pane in reading] == [pane.label for pane in holding]
    for pane in reading:
        assert snippets.VARIABLE in pane.code and "http://localhost/v1" in pane.code
        assert ("vendor/one" in pane.code) is (capability != "unheard-of")
    for pane in holding:
        assert "sk-secret" in pane.code and snippets.VARIABLE not in pane.code
        if pane.language == "python":
            compile(pane.code, pane.label, "exec")


def test_the_first_capability_that_a_call_can_be_written_for_counts() -> None:
    assert snippets.capability_of(["unheard-of", "rerank", "chat"]) == "rerank"
    assert snippets.capability_of([]) == ""
