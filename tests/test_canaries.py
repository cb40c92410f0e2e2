"""No secret stands in the clear in what Portico keeps: database, Redis, spool and log (promise Q13).

A walk plants every secret that there is; then every file of the data folder is searched for each of them.
"""

from __future__ import annotations

import base64
import html
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import requests

from tests.services.issuer import CLIENT, Issuer
from tests.services.portico import Portico
from tests.services.upstream import Upstream, unused_port
from tests.services.waiting import until

pytestmark = pytest.mark.slow

PROVIDER_KEY = "canary-of-a-provider-8412903"
PROVIDER_KEY_IN_ENVIRONMENT = "canary-of-the-environment-551208"
MAIL_PASSWORD = "canary-of-the-mail-server-77410"
WEBHOOK_SECRET = "canary-of-the-webhook-903311"
CLIENT_SECRET = "canary-of-the-client-at-the-provider-33127"
SCIM_TOKEN = "canary-of-the-directory-with-its-length-60418"
NEW_PASSWORD = "canary of a person 2214 with words"


class Walk:
    """A browser and a program of the admin, and the secrets that they came by."""

    def __init__(self, portico: Portico) -> None:
        self.portico = portico
        self.browser = requests.Session()
        self.planted: dict[str, str] = {}

    def form(self, path: str, page: str = "/home", **fields: str) -> requests.Response:
        shown = self.browser.get(self.portico.url + page, timeout=30)
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', shown.text)
        once = re.search(r'name="once"[^>]*value="([^"]+)"', shown.text)
        assert token, shown.text[:500]
        self.planted["CSRF token"] = token[1]
        sent = {"csrf_token": token[1], **({"once": once[1]} if once else {}), **fields}
        answer = self.browser.post(self.portico.url + path, data=sent, timeout=30, allow_redirects=False)
        assert answer.status_code == 303, (path, answer.status_code, answer.text[:2000])
        if "once=" in (place := answer.headers["Location"]):
            return self.browser.get(self.portico.url + place, timeout=30)
        return answer

    def ask(self, method: str, path: str, **arguments: object) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.planted.get('access token', '')}"}
        answer = requests.request(method, self.portico.url + path, headers=headers, timeout=30, **arguments)  # type: ignore[arg-type]
        assert answer.ok, (path, answer.status_code, answer.text)
        return answer

    def sign_in_with(self, issuer: Issuer) -> None:
        """Somebody signs in with the identity provider; a directory asks for them."""
        browser = requests.Session()
        led = browser.get(f"{self.portico.url}/oidc/login", timeout=30, allow_redirects=False).headers["Location"]
        asked = issuer.led(led)
        signed: list[str] = []

        def sign(claims: dict[str, object]) -> str:
            signed.append(issuer.sign(claims))
            return signed[0]

        issuer.id_token, code = sign, "canary-of-a-code-99127"
        answer = browser.get(
            f"{self.portico.url}/oidc/callback",
            params={"code": code, "state": asked["state"]}, timeout=30, allow_redirects=False,
        )  # fmt: skip
        assert answer.status_code == 303, answer.text
        self.planted |= {"ID token": signed[0], "secret of the client": CLIENT_SECRET, "token of SCIM": SCIM_TOKEN}
        self.planted |= {"nonce": asked["nonce"], "state": asked["state"], "code": code}
        self.planted["verifier"] = next(form["code_verifier"] for path, form, _ in issuer.asked if path == "/token")
        headers = {"Authorization": f"Bearer {SCIM_TOKEN}"}
        found = requests.get(f"{self.portico.url}/scim/v2/Users", headers=headers, timeout=30)
        assert found.json()["totalResults"] >= 2

    def go(self, upstream: Upstream, issuer: Issuer) -> None:
        planted = self.planted
        planted["password of the admin"] = self.portico.admin_password
        self.form("/sign-in", "/sign-in", username="admin", password=self.portico.admin_password)
        planted |= session_of(self.browser)

        granted = self.ask("POST", "/token", data={"username": "admin", "password": self.portico.admin_password}).json()
        planted["first access token"], planted["used refresh token"] = granted["access_token"], granted["refresh_token"]
        renewed = self.ask("POST", "/refresh-token", json={"refresh_token": granted["refresh_token"]}).json()
        planted["access token"], planted["refresh token"] = renewed["access_token"], renewed["refresh_token"]
        lasting = self.ask("POST", "/admin/token/admin", json={}).json()
        planted["long-lived token"], planted["its refresh token"] = lasting["access_token"], lasting["refresh_token"]
        self.sign_in_with(issuer)

        person = {"username": "ada", "email": "ada@example.org", "password": NEW_PASSWORD, "role": "user"}
        self.ask("POST", "/admin/users", json=person)
        planted["password of a person"] = NEW_PASSWORD
        temporary = self.form("/admin/people/ada/password")
        found = re.search(r'id="[\w-]*password[\w-]*">([A-Za-z0-9]{20})<', temporary.text)
        assert found, temporary.text
        planted["temporary password"] = found[1]

        planted["key of a provider"] = PROVIDER_KEY
        planted["key of a provider in the environment"] = PROVIDER_KEY_IN_ENVIRONMENT
        deployments = []
        for name, secret in (("Own", {"api_key": PROVIDER_KEY}), ("Env", {"api_key_env": "CANARY_API_KEY"})):
            config = {"base_url": upstream.url, **secret}
            made = self.ask(
                "POST", "/api/providers", json={"name": name, "provider": "openai", "config": config}
            ).json()
            self.ask("POST", f"/api/providers/{made['id']}/test", json={})
            deployments.append({"provider_id": made["id"], "upstream_model": name})
        for deployment in deployments:
            model = {"name": deployment["upstream_model"], "deployments": [deployment], "capabilities": ["chat"]}
            self.ask("POST", "/api/models", json=model)
            self.ask("POST", "/api/subscriptions", json={"model": deployment["upstream_model"]})

        shown = self.form("/keys", "/keys/new", name="in the browser", lifetime="never", reach="all", period="month")
        planted["key from the portal"] = key_in(shown.text)
        made = self.ask("POST", "/api/keys", json={"name": "by program"}).json()
        planted["key"] = key_in(str(made))
        planted["rotated key"] = key_in(str(self.ask("POST", f"/api/keys/{made['id']}/rotation", json={}).json()))
        for name in ("Own", "Env"):
            body = {"model": name, "messages": [{"role": "user", "content": "hello"}]}
            for key in (planted["key from the portal"], planted["long-lived token"]):
                answer = requests.post(f"{self.portico.url}/v1/chat/completions", json=body, timeout=30,
                                       headers={"Authorization": f"Bearer {key}"})  # fmt: skip
                assert answer.ok, answer.text
        refused = requests.get(f"{self.portico.url}/v1/models", timeout=30, headers={"X-Api-Key": planted["key"] + "x"})
        assert refused.status_code == 401

        invited = self.form(
            "/admin/invitations", "/admin/invitations/new", email="eve@example.org", role="user", days="7"
        )
        link = re.search(r"/invitation/([\w-]{43})", html.unescape(invited.text))
        assert link
        planted["invitation"] = link[1]
        planted["password of the mail server"], planted["secret of the webhook"] = MAIL_PASSWORD, WEBHOOK_SECRET


def session_of(browser: requests.Session) -> dict[str, str]:
    """What the cookie holds, which is signed and not sealed."""
    [cookie] = [cookie for cookie in browser.cookies if cookie.name == "portico_session"]
    value = str(cookie.value)
    packed = value.lstrip(".").partition(".")[0]
    told = base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
    told = zlib.decompress(told) if value.startswith(".") else told
    found = re.search(rb'"sid":"([^"]+)"', told)
    assert found, told
    return {"session": found[1].decode(), "cookie": value}


def key_in(text: str) -> str:
    found = re.search(r"\bsk-[\w-]{20,}", text)
    assert found, text
    return found[0]


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    server = Issuer()
    server.person = {"sub": "sub-grace", "preferred_username": "grace"}
    yield server
    server.stop()


def test_no_secret_stands_in_the_clear_in_anything_that_is_kept(
    start_portico: Callable[..., Portico], upstream: Upstream, issuer: Issuer
) -> None:
    portico = start_portico(
        CANARY_API_KEY=PROVIDER_KEY_IN_ENVIRONMENT,
        CONFIG_MAIL_HOST="127.0.0.1",
        CONFIG_MAIL_PORT=str(unused_port()),  # mails wait
        CONFIG_MAIL_USERNAME="portico",
        CONFIG_MAIL_PASSWORD=MAIL_PASSWORD,
        CONFIG_WEBHOOK_URL=f"http://127.0.0.1:{unused_port()}/hook",
        CONFIG_WEBHOOK_SECRET=WEBHOOK_SECRET,
        CONFIG_OIDC_ISSUER=issuer.url,
        CONFIG_OIDC_CLIENT_ID=CLIENT,
        CONFIG_OIDC_CLIENT_SECRET=CLIENT_SECRET,
        CONFIG_SCIM_TOKEN=SCIM_TOKEN,
    )
    walk = Walk(portico)
    walk.go(upstream, issuer)
    assert {request.headers.get("authorization") for request in upstream.requests} == {
        f"Bearer {PROVIDER_KEY}", f"Bearer {PROVIDER_KEY_IN_ENVIRONMENT}",
    }  # fmt: skip
    with redis.Redis.from_url(portico.redis_url) as client:
        until(lambda: client.xlen("{org:default}:usage") == 0)  # what was used is in the books
        assert client.config_set("rdbcompression", "no")
        client.save()
    portico.stop()
    files = [path for path in portico.data_dir.rglob("*") if path.is_file()]
    kept = {path: path.read_bytes() for path in files}
    names = " ".join(str(path.relative_to(portico.data_dir)) for path in files)
    assert "portico.db" in names and ".aof" in names and ".rdb" in names and "portico.log" in names
    assert b"eve@example.org" in b"".join(kept.values())  # the search finds what is there
    assert found_in(kept, walk.planted) == []


def found_in(kept: dict[Path, bytes], planted: dict[str, str]) -> list[tuple[str, str]]:
    """Which secret stands in which file."""
    return [
        (what, path.name)
        for path, content in kept.items()
        for what, secret in planted.items()
        if secret.encode() in content
    ]
