"""From a refused call to the audit log, through every process of a whole Portico."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from app.gateway.key_text import new_key
from tests.services.portico import Portico
from tests.services.waiting import PATIENCE_S, until

pytestmark = pytest.mark.services


def test_the_audit_log_tells_of_refused_keys_models_and_sign_ins(portico: Portico) -> None:
    def sign_in(password: str) -> requests.Response:
        form = {"username": portico.admin_username, "password": password}
        return requests.post(f"{portico.url}/token", form, timeout=PATIENCE_S)

    bearer = {"Authorization": f"Bearer {sign_in(portico.admin_password).json()['access_token']}"}

    def rows(action: str) -> list[dict[str, Any]]:
        found = requests.get(f"{portico.url}/api/audit?action={action}", headers=bearer, timeout=PATIENCE_S)
        data: list[dict[str, Any]] = found.json()["data"]
        return data

    key = new_key()
    for _ in range(5):
        assert (
            requests.get(f"{portico.url}/v1/models", headers={"x-api-key": key}, timeout=PATIENCE_S).status_code == 401
        )
    until(lambda: [row for row in rows("key.refuse") if row["detail"]["last4"] == key[-4:]])
    body = {"model": "nowhere", "messages": [{"role": "user", "content": "a"}]}
    asked = requests.post(f"{portico.url}/v1/chat/completions", json=body, headers=bearer, timeout=PATIENCE_S)
    assert asked.status_code == 404
    until(lambda: [row for row in rows("model.refuse") if row["object"]["name"] == "nowhere"])
    assert rows("model.refuse")[0]["actor"] == portico.admin_username
    assert sign_in("not the right password").status_code == 401
    assert rows("sign_in.refuse")[0]["detail"] == {"method": "token", "reason": "wrong_password"}
    assert rows("sign_in.accept")[0]["actor"] == portico.admin_username
