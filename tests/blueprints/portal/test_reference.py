"""The API reference: everything that the description says, readable without scripts, with this address to copy."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from flask import Flask

from app import create_app
from app.web import reference
from config import Config, load
from tests.blueprints.portal.conftest import Browser
from tests.house import People, configured


@pytest.fixture
def config(tmp_path: Path, valkey_url: str, database_url: str) -> Config:
    return configured(tmp_path, valkey_url, database_url, "portal,api,public")


def test_every_operation_is_there_with_an_anchor_and_a_call(
    app: Flask, people: People, signed_in: Callable[[str], Browser]
) -> None:
    answer = signed_in("stranger").get("/reference")
    page = unescape(answer.text)
    assert answer.status_code == 200
    with app.app_context():
        described = reference.document()
    assert described is not None
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert f"{method.upper()} {path}</code>" in page
            assert f'id="{operation["operationId"]}"' in page
            assert f"http://localhost{path}'" in page
    assert 'href="/reference/objects"' in page
    objects = signed_in("stranger").get("/reference/objects").text
    for name in described["components"]["schemas"]:
        assert f'id="object-{name}"' in objects
    ids = re.findall(r' id="([^"]+)"', answer.text)
    assert len(ids) == len(set(ids))
    assert {link for link in re.findall(r'href="#([^"]+)"', answer.text)} <= set(ids) | {"main"}


def test_the_errors_of_v1_are_told_in_their_own_words(people: People, signed_in: Callable[[str], Browser]) -> None:
    page = signed_in("owner").page("/reference")
    told = {(row.cell("error.code").text, row.cell("Status").text) for row in page.table("Errors of /v1").rows}
    assert told >= {
        ("invalid_api_key", "401"), ("model_not_found", "404"), ("insufficient_quota", "429"),
        ("rate_limit_exceeded", "429"), ("upstream_timeout", "504"),
    }  # fmt: skip
    assert page.table("Headers of /v1").row("x-ratelimit-remaining-tokens")
    assert page.section("Where to begin").codes[0] == "http://localhost/v1"


def test_the_page_is_light(people: People, signed_in: Callable[[str], Browser]) -> None:
    assert len(gzip.compress(signed_in("owner").get("/reference").data, 6)) < 30 * 1024


def test_a_process_without_the_api_tells_of_v1_alone(tmp_path: Path) -> None:
    made = create_app(load({"CONFIG_STORAGE_DATA_DIR": str(tmp_path)}), {"portal", "public"})
    with made.app_context():
        assert reference.document() is None
