"""A kept prompt in a request: its text takes its place, for those alone whose it is."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from app.directory import CallerRecord, PromptOwner, PromptText
from app.gateway.endpoints import CHAT, COMPLETIONS, EMBEDDINGS, Endpoint
from app.gateway.errors import ApiError
from app.gateway.prompts import Expanded, expand, tags_of
from app.gateway.redis_wire import RedisAway, RedisWire
from tests.gateway.dialects.calls import CALLER

TEXT = PromptText(version=2, template="Say {{word}}", model="small")


class Wire:
    """A Redis with one prompt, `p`, of the caller of these tests unless it is somebody else's."""

    def __init__(self, **owner: str) -> None:
        self.owner = PromptOwner(**(owner or {"person_id": CALLER.person_id}))
        self.asked: list[str] = []

    def call(self, *command: str) -> list[bytes | None]:
        self.asked.append(command[0])
        if not command[1].endswith(":prompt:p"):
            return [None, None]
        text = msgspec.json.encode(TEXT) if command[3] in ("latest", "2") else None
        return [msgspec.json.encode(self.owner), text]


def expanded(body: Any, endpoint: Endpoint = CHAT, wire: Any = None, caller: CallerRecord = CALLER) -> Expanded | None:
    return expand(cast(RedisWire, wire or Wire()), caller, endpoint, msgspec.json.encode(body))


def body_of(found: Expanded | None) -> dict[str, Any]:
    assert found is not None
    return cast(dict[str, Any], msgspec.json.decode(found.body))


def prompt(**fields: Any) -> dict[str, Any]:
    return {"prompt": {"id": "p", "variables": {"word": "hello"}, **fields}}


def test_the_text_is_what_the_user_says_or_the_system_before_other_messages() -> None:
    said = {"role": "user", "content": "Say hello"}
    found = expanded({**prompt(), "temperature": 0.5})
    assert body_of(found) == {"temperature": 0.5, "messages": [said], "model": "small"}
    assert found is not None and found.tags == tags_of("p", 2) == ("prompt:p", "prompt:p:2")
    asked = [{"role": "user", "content": "Now"}]
    assert body_of(expanded({**prompt(), "model": "other", "messages": asked})) == {
        "model": "other",
        "messages": [{"role": "system", "content": "Say hello"}, *asked],
    }
    assert body_of(expanded({**prompt(), "messages": []}))["messages"] == [{"role": "system", "content": "Say hello"}]
    assert body_of(expanded(prompt(), COMPLETIONS)) == {"prompt": "Say hello", "model": "small"}


def test_a_request_without_one_asks_redis_for_nothing() -> None:
    wire = Wire()
    for body in (
        {"messages": [{"role": "user", "content": '"prompt": {"id": "p"}'}]},
        {"prompt": "text"},
        {"prompt": None},
    ):
        assert expanded(body, CHAT, wire) is None
    assert expanded({"prompt": ["a"]}, COMPLETIONS, wire) is None
    assert expanded(prompt(), EMBEDDINGS, wire) is None
    assert wire.asked == []


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"id": "q"}, 404, "prompt.id"),
        ({"version": 3}, 404, "prompt.version"),
        ({"version": 0}, 400, "prompt"),
        ({"variables": {}}, 400, "prompt.variables.word"),
        ({"variables": {"word": "a", "more": "b"}}, 400, "prompt.variables.more"),
        ({"variables": {"word": {}}}, 400, "prompt"),
        ({"more": 1}, 400, "prompt"),
        ({"id": None}, 400, "prompt"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], status: int, param: str) -> None:
    with pytest.raises(ApiError) as refused:
        expanded(prompt(**fields))
    assert (refused.value.status, refused.value.param) == (status, param)


def test_a_person_s_prompt_is_for_their_own_keys_and_a_team_s_for_the_team_s() -> None:
    of_team = msgspec.structs.replace(CALLER, team_id="t")
    assert expanded(prompt(), wire=Wire(team_id="t"), caller=of_team) is not None
    for wire, caller in ((Wire(team_id="t"), CALLER), (Wire(), of_team), (Wire(person_id="else"), CALLER)):
        with pytest.raises(ApiError) as refused:
            expanded(prompt(), wire=wire, caller=caller)
        assert refused.value.code == "prompt_not_found"


def test_without_redis_it_is_nobody_s_fault() -> None:
    class Away:
        def call(self, *_: str) -> None:
            raise RedisAway("gone")

    with pytest.raises(ApiError) as refused:
        expanded(prompt(), wire=Away())
    assert refused.value.status == 503
