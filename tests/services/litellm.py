"""A scripted LiteLLM on a port of its own: it holds users, teams, members, keys and models, in the shapes of its proxy's own
API, page by page, and can limit rates, fail half-way, and change under whoever reads it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from app import clock

MASTER_KEY = "sk-master-of-litellm"
VERSION = "1.109.1"
Row = dict[str, Any]
LIMITS = ("max_budget", "budget_duration", "rpm_limit", "tpm_limit")


class LiteLLMServer:
    """`users`, `teams`, `keys` and `models` are what it holds; `before` is called with each request and may answer it instead."""

    def __init__(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.reset()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reset(self) -> None:
        self.users: dict[str, Row] = {}
        self.teams: dict[str, Row] = {}
        self.caps: dict[tuple[str, str], Row] = {}
        self.keys: dict[str, Row] = {}
        self.models: dict[str, Row] = {}
        self.asked: list[tuple[str, str, Any]] = []  # method, path with query, body
        self.authorizations: list[str] = []
        self.before: Callable[[str, str], tuple[int, Any, dict[str, str]] | None] = lambda method, path: None
        self._count = 0

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    # --- for tests ---

    def user(self, user_id: str, **values: Any) -> Row:
        row = {
            "user_id": user_id,
            "user_email": None,
            "user_role": "internal_user",
            **dict.fromkeys(LIMITS),
            "teams": [],
        }
        self.users[user_id] = row | values
        return self.users[user_id]

    def team(self, team_id: str, alias: str, **values: Any) -> Row:
        row = {"team_id": team_id, "team_alias": alias, "members_with_roles": [], "models": [], **dict.fromkeys(LIMITS)}
        self.teams[team_id] = row | values
        return self.teams[team_id]

    def member(self, team_id: str, user_id: str, role: str = "user", cap: float | None = None) -> None:
        self._remove_member(team_id, user_id)
        member = {"user_id": user_id, "user_email": None, "role": role}
        self.teams[team_id]["members_with_roles"].append(member)
        self._cap(team_id, user_id, cap)

    def key(self, alias: str, user_id: str, **values: Any) -> Row:
        self._count += 1
        token = hashlib.sha256(f"sk-{self._count}".encode()).hexdigest()
        row = {
            "token": token, "key_alias": alias, "key_name": f"sk-...{self._count:04}", "user_id": user_id, "team_id": None,
            "models": [], "expires": None, "blocked": None, **dict.fromkeys(LIMITS),
        }  # fmt: skip
        self.keys[token] = row | values
        return self.keys[token]

    def model(self, name: str, id: str | None = None, **info: Any) -> Row:
        id = id or f"id-of-{name}"
        row = {
            "model_name": name,
            "litellm_params": {"model": f"openai/{name}"},
            "model_info": {"id": id, "db_model": True, **info},
        }
        self.models[id] = row
        return row

    # --- its API ---

    def answer(self, method: str, target: str, body: Any, authorization: str) -> tuple[int, Any, dict[str, str]]:
        self.asked.append((method, target, body))
        self.authorizations.append(authorization)
        instead = self.before(method, target)
        if instead is not None:
            return instead
        split = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        if split.path == "/health/readiness":
            return 200, {"status": "healthy", "db": "connected", "litellm_version": VERSION}, {}
        if authorization != f"Bearer {MASTER_KEY}":
            return 401, {"error": {"message": "Authentication Error", "type": "auth_error", "code": "401"}}, {}
        try:
            return 200, self._do(method, split.path, query, body or {}), {}
        except KeyError as error:
            return 404, {"detail": {"error": f"not found: {error}"}}, {}
        except ValueError as error:
            return 400, {"error": {"message": str(error), "type": "bad_request_error", "code": "400"}}, {}

    def _do(self, method: str, path: str, query: dict[str, str], body: Row) -> Any:
        match method, path.split("/")[1:]:
            case "GET", ["user", "list"]:
                return _page(list(self.users.values()), "users", query, "page_size", "total", "page")
            case "GET", ["v2", "team", "list"]:
                return _page(list(self.teams.values()), "teams", query, "page_size", "total", "page")
            case "GET", ["team", "list"]:
                return [
                    team | {"keys": [], "team_memberships": [cap for at, cap in self.caps.items() if at[0] == id]}
                    for id, team in self.teams.items()
                ]
            case "GET", ["key", "list"]:
                return _page(list(self.keys.values()), "keys", query, "size", "total_count", "current_page")
            case "GET", ["model", "info"]:
                return {"data": list(self.models.values())}
            case "POST", ["user", "new"]:
                if body["user_id"] in self.users:
                    raise ValueError(f"User with id {body['user_id']} already exists")
                return self.user(**{name: body[name] for name in body if name != "auto_create_key"})
            case "POST", ["user", "update"]:
                self.users[body["user_id"]].update(body)
                return {"data": body}
            case "POST", ["user", "delete"]:
                for id in body["user_ids"]:
                    del self.users[id]
                return len(body["user_ids"])
            case "POST", ["team", "new"]:
                if body["team_id"] in self.teams:
                    raise ValueError(f"Team id = {body['team_id']} already exists. Please use a different team id.")
                return self.team(body["team_id"], body["team_alias"], **{name: body.get(name) for name in LIMITS})
            case "POST", ["team", "update"]:
                self.teams[body["team_id"]].update(body)
                return {"data": body}
            case "POST", ["team", "delete"]:
                for id in body["team_ids"]:
                    del self.teams[id]
                    self.keys = {token: key for token, key in self.keys.items() if key["team_id"] != id}
                return {}
            case "POST", ["team", "member_add"]:
                member = body["member"]
                if any(
                    one["user_id"] == member["user_id"] for one in self.teams[body["team_id"]]["members_with_roles"]
                ):
                    raise ValueError(f"User {member['user_id']} already in team")
                self.member(body["team_id"], member["user_id"], member["role"], body.get("max_budget_in_team"))
                return {}
            case "POST", ["team", "member_update"]:
                team, user = self.teams[body["team_id"]], body["user_id"]
                [member] = [one for one in team["members_with_roles"] if one["user_id"] == user]
                member["role"] = body.get("role") or member["role"]
                if "max_budget_in_team" in body:
                    self._cap(body["team_id"], user, body["max_budget_in_team"])
                return {}
            case "POST", ["team", "member_delete"]:
                self._remove_member(body["team_id"], body["user_id"])
                return {}
            case "POST", ["key", "generate"]:
                if body.get("key_alias") in [key["key_alias"] for key in self.keys.values()]:
                    raise ValueError(f"Key with alias '{body['key_alias']}' already exists.")
                values = {name: body[name] for name in body if name not in ("key_alias", "user_id", "duration")}
                row = self.key(body["key_alias"], body["user_id"], **values, expires=_expiry(body.get("duration")))
                return row | {"key": f"sk-{self._count}"}
            case "POST", ["key", "update"]:
                row = self.keys[body["key"]]
                row.update({name: value for name, value in body.items() if name not in ("key", "duration")})
                if body.get("duration"):
                    row["expires"] = _expiry(body["duration"])
                return row
            case "POST", ["key", "delete"]:
                for token in body["keys"]:
                    del self.keys[token]
                return {"deleted_keys": body["keys"]}
            case "PATCH", ["model", id, "update"]:
                self.models[id]["model_info"].update(body["model_info"])
                return self.models[id]
            case "POST", ["model", "delete"]:
                del self.models[body["id"]]
                return {}
        raise KeyError(path)

    def _remove_member(self, team_id: str, user_id: str) -> None:
        team = self.teams[team_id]
        team["members_with_roles"] = [one for one in team["members_with_roles"] if one["user_id"] != user_id]
        self.caps.pop((team_id, user_id), None)

    def _cap(self, team_id: str, user_id: str, cap: float | None) -> None:
        self.caps[team_id, user_id] = {
            "team_id": team_id, "user_id": user_id, "litellm_budget_table": {"max_budget": cap},
        }  # fmt: skip


def _page(rows: list[Row], member: str, query: dict[str, str], size: str, total: str, number: str) -> Row:
    page, many = int(query.get("page", 1)), int(query.get(size, 10))
    if not 1 <= many <= 100:
        raise ValueError(f"{size}: expected 1 to 100")
    return {
        member: rows[(page - 1) * many : page * many], total: len(rows), number: page, "total_pages": -(-len(rows) // many),
    }  # fmt: skip


def _expiry(duration: str | None) -> str | None:
    if duration is None or duration == "-1":  # for ever
        return None
    return (clock.now() + timedelta(seconds=int(duration.removesuffix("s")))).isoformat()


def _handler(litellm: LiteLLMServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            authorization = self.headers.get("Authorization", "")
            status, document, headers = litellm.answer(self.command, self.path, body, authorization)
            text = document.encode() if isinstance(document, str) else json.dumps(document).encode()
            self.send_response(status)
            for name, value in (
                {"Content-Type": "application/json", "Content-Length": str(len(text))} | headers
            ).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = _answer  # noqa: N815 - as http.server wants it

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
