"""A scripted identity provider on a port of its own: it signs what a test wants, right or wrong, and notes what it is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey
from joserfc.jws import JWSRegistry
from joserfc.registry import HeaderParameter

from app import clock

CLIENT, SECRET = "portico", "a secret of the client"
EVERY_ALGORITHM = ["RS256", "PS256", "ES256", "HS256", "none"]


class Issuer:
    """`issuer.person` are the claims of whom it signs in; `issuer.code()` answers a browser that was led to it."""

    def __init__(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
        self.other_key = RSAKey.generate_key(2048, {"kid": "one"})
        self.reset()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reset(self) -> None:
        """As it begins: it signs in ada, and answers sensibly."""
        self.person: dict[str, Any] = {"sub": "sub-ada", "preferred_username": "ada", "email": "ada@example.org"}
        self.userinfo: dict[str, Any] | None = None
        self.access_claims: dict[str, Any] | None = None  # the access token is a JWT with these, else opaque
        self.change_token: Callable[[dict[str, Any]], object] = lambda claims: None
        self.id_token: Callable[[dict[str, Any]], str | None] = self.sign
        self.answers: dict[str, tuple[int, str]] = {}  # instead of the usual, by path
        self.keys = [self.key]
        self.asked: list[tuple[str, dict[str, str], str]] = []  # path, form, authorization
        self.openshift_user: dict[str, Any] = {}
        self.nonce: str | None = None

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def led(self, location: str) -> dict[str, str]:
        """What a browser that was led here brings along; the next token has its nonce."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        self.nonce = query.get("nonce")
        return query

    def claims(self, **values: Any) -> dict[str, Any]:
        now = clock.now_s()
        claims = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 300, **self.person}
        return claims | ({"nonce": self.nonce} if self.nonce else {}) | values

    def sign(self, claims: dict[str, Any], key: Any = None, **header: Any) -> str:
        header = {"alg": "RS256", "kid": "one", **header}
        odd = {"magic": HeaderParameter("for tests", "int")}
        registry = JWSRegistry(odd, algorithms=EVERY_ALGORITHM, strict_check_header=False)
        return jwt.encode(header, claims, key or self.key, registry=registry)

    def answer(self, method: str, path: str, form: dict[str, str], authorization: str) -> tuple[int, str]:
        self.asked.append((path, form, authorization))
        if path in self.answers:
            return self.answers[path]
        document: Any
        match path:
            case "/.well-known/openid-configuration" | "/.well-known/oauth-authorization-server":
                document = {
                    "issuer": self.url,
                    "authorization_endpoint": f"{self.url}/authorize",
                    "token_endpoint": f"{self.url}/token",
                    "jwks_uri": f"{self.url}/keys",
                    "userinfo_endpoint": f"{self.url}/userinfo",
                    "end_session_endpoint": f"{self.url}/end",
                    "id_token_signing_alg_values_supported": EVERY_ALGORITHM,  # what it says does not count
                }
            case "/keys":
                document = {"keys": [key.as_dict(private=False) for key in self.keys]}
            case "/token":
                claims = self.claims()
                self.change_token(claims)
                access = self.sign(self.access_claims) if self.access_claims is not None else "opaque"
                document = {"access_token": access, "token_type": "Bearer", "expires_in": 300}
                if (text := self.id_token(claims)) is not None:
                    document["id_token"] = text
            case "/userinfo" if self.userinfo is not None:
                document = self.userinfo
            case "/userinfo":
                document = {"sub": self.person["sub"]}
            case "/apis/user.openshift.io/v1/users/~":
                document = self.openshift_user
            case _:
                return 404, "{}"
        return 200, json.dumps(document)


def _handler(issuer: Issuer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            form = {name: values[0] for name, values in parse_qs(self.rfile.read(length).decode()).items()}
            status, body = issuer.answer(
                self.command, urlsplit(self.path).path, form, self.headers.get("Authorization", "")
            )
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    return Handler
