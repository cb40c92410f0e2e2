"""Responses of an upstream that speaks them: what they cost, and what goes up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import pytest

from app.directory import Deployment, LongContext, Price
from app.metering import pricing
from app.metering.quantities import NAMES
from app.providers import adapter
from app.providers.addresses import AddressPolicy
from app.providers.base import UpstreamRequest, Usage
from app.providers.http import Answer
from app.providers.openai_responses import ResponsesExchange, _unpriced_in, body_of, usage_object
from app.providers.usage import read
from app.runtime.jsonbody import places_of
from bench.answers import Canned
from tests.providers.contract import Recording, Stage, playing
from tests.services.upstream import Upstream, response, said

# Dollars a million tokens, which are thousandths of a nano-dollar a token times a million.
PRICE = Price(
    id="price",
    rates={"input_per_mtok": 2_000_000_000, "cached_input_per_mtok": 200_000_000, "cache_write_per_mtok": 2_500_000_000,
           "output_per_mtok": 8_000_000_000},
    tiers={
        "flex": {"input_per_mtok": 1_000_000_000, "cached_input_per_mtok": 100_000_000, "output_per_mtok": 4_000_000_000},
        "priority": {"input_per_mtok": 4_000_000_000, "cached_input_per_mtok": 400_000_000, "output_per_mtok": 16_000_000_000},
    },
    long_context=LongContext(
        above_prompt_tokens=272_000,
        rates={"input_per_mtok": 4_000_000_000, "cached_input_per_mtok": 400_000_000, "output_per_mtok": 12_000_000_000},
    ),
)  # fmt: skip


class Case(NamedTuple):
    """What a response told, and what it costs in nano-dollars."""

    name: str
    told: dict[str, Any]
    cost_nano: int


def of(input: int, output: int, cached: int = 0, written: int = 0, thought: int = 0, **more: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": input, "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "output_tokens": output, "output_tokens_details": {"reasoning_tokens": thought}, "total_tokens": input + output,
    }  # fmt: skip
    return {"usage": usage, "service_tier": "default", **more}


CASES = [
    Case("short", {"usage": {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}}, 42_000),
    Case("one of each", of(3, 2, 1, 1, 1), 20_700),
    Case("nothing is cached", of(1000, 100), 2_800_000),
    Case("all is cached", of(1000, 1, 1000), 208_000),
    Case("most is cached", of(31_207, 118, 30_976), 7_601_200),
    Case("an agent's first request", of(9_804, 260, 0, 9_728), 26_552_000),
    Case("an agent's second request", of(10_240, 64, 9_728, 384), 3_673_600),
    Case("read and written at once", of(5_000, 500, 2_000, 1_000), 10_900_000),
    Case("thought is output", of(40, 2_100, thought=1_984), 16_880_000),
    Case("only thought", of(40, 16, thought=16), 208_000),
    Case("served flex", of(1000, 500, 100, service_tier="flex"), 2_910_000),
    Case("served at priority", of(1000, 500, 100, service_tier="priority"), 11_640_000),
    Case("a tier that the price does not have", of(1000, 500, service_tier="scale"), 6_000_000),
    Case("no tier", of(1000, 500) | {"service_tier": None}, 6_000_000),
    Case("at the edge of a long prompt", of(272_000, 10), 544_080_000),
    Case("a long prompt", of(272_001, 10), 1_088_124_000),
    Case("a long prompt that is cached", of(300_000, 1_000, 290_000), 168_000_000),
    Case("details are missing", {"usage": {"input_tokens": 70, "output_tokens": 30, "input_tokens_details": None}}, 380_000),
    Case("figures are texts", {"usage": {"input_tokens": "70", "output_tokens": "30"}}, 380_000),
    Case("more is told than is known", of(70, 30) | {"usage": of(70, 30)["usage"] | {"new_tokens": 9}}, 380_000),
]  # fmt: skip


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with playing("openai") as made:
        yield made


def recording(case: Case, stream: bool) -> Recording:
    whole = response(said("Some words."), **case.told)
    if stream:
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": whole | {"status": "in_progress", "output": [], "usage": None}},
            {"type": "response.output_item.added", "output_index": 0, "item": said("") | {"content": []}},
            {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Some words."},
            {"type": "response.completed", "response": whole},
        ]
        told = "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events)
    else:
        told = json.dumps(whole) + "\n"
    kind = "text/event-stream" if stream else "application/json"
    came = f"HTTP/1.1 200 OK\nContent-Type: {kind}\n\n{told}".encode()
    return Recording(
        case.name, {"input": "hi", "stream": stream, "max_output_tokens": 100_000}, came, is_http=True, hangs_up=False,
        gives={}, capability="chat", settings={}, deployment={}, asked=None, endpoint="responses",
    )  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_usage_costs_what_a_person_works_out(stage: Stage, case: Case, stream: bool) -> None:
    outcome = stage.play(recording(case, stream), neutral=False)
    used = outcome.used
    assert outcome.error is None and used is not None and not used["estimated"]
    counts = {name: count for name, count in used.items() if name in NAMES}
    tier = pricing.tier_of(PRICE, pricing.TokenBound(1000, 100_000), used.get("service_tier"))
    assert pricing.cost_nano(PRICE, counts, tier) == case.cost_nano


def test_what_is_told_to_clients_is_what_was_told() -> None:
    for case in CASES:
        told = read(json.dumps(case.told["usage"]).encode())
        assert told.prompt is not None and told.completion is not None
        usage = Usage(told.prompt, told.cached or 0, told.completion, dict(told.more))
        again = read(json.dumps(usage_object(usage)).encode())
        assert (again.prompt, again.cached, again.completion, again.more) == (
            told.prompt, told.cached or 0, told.completion, told.more,
        )  # fmt: skip


class TestWhatHasNoPrice:
    def test_is_told(self) -> None:
        image = {"input_tokens": 120, "output_tokens": 4160, "input_tokens_details": {"cached_tokens": 0}}
        items = [{"type": "web_search_call"}, {"type": "web_search_call"}, {"type": "image_generation_call"}, said("x"),
                 {"type": "reasoning"}, {"type": "function_call"}]  # fmt: skip
        assert _unpriced_in(response(*items, tool_usage={"image_gen": image, "web_search": None})) == {
            "web_search_call": 2, "image_generation_call": 1, "image_gen_input_tokens": 120, "image_gen_output_tokens": 4160,
        }  # fmt: skip

    @pytest.mark.parametrize("odd", [{}, {"output": 7, "tool_usage": 7}, {"output": [7, {"type": 7}], "tool_usage": {"x": 7}},
                                     {"tool_usage": {"x": {"input_tokens": -1, "output_tokens": "many"}}}])  # fmt: skip
    def test_is_never_too_odd_to_be_read(self, odd: Any) -> None:
        assert _unpriced_in(odd) == {}


def request_of(body: bytes, limit: int | None) -> UpstreamRequest:
    members = {name: json.dumps(value).encode() for name, value in json.loads(body).items()}
    raw = places_of(body, members, *(name for name in ("model", "max_output_tokens") if name in members))
    members.pop("max_output_tokens", None)
    return UpstreamRequest(
        capability="chat",
        dialect="openai_responses",
        model="ours",
        members=members,
        parsed=None,
        max_output=limit,
        raw=raw,
    )


class TestABody:
    PLAIN = b'{"input": "hi", "model": "ours", "max_output_tokens": 50, "new": [1, 2]}'

    @pytest.mark.parametrize(
        ("body", "limit", "sent"),
        [
            (PLAIN, 20, b'{"input": "hi", "model": "up", "max_output_tokens": 20, "new": [1, 2]}'),
            (b'{"model": "ours", "input": "hi"}', None, b'{"model": "up", "input": "hi"}'),
            (b'{"model": "ours", "input": "hi"}', 16, b'{"model": "up","max_output_tokens":16, "input": "hi"}'),
            (b'{"model": "ours", "max_output_tokens": null}', 16, b'{"model": "up", "max_output_tokens": 16}'),
        ],
    )
    def test_has_the_limit_that_was_held_for_and_is_else_as_it_came(self, body: bytes, limit: Any, sent: bytes) -> None:
        assert b"".join(body_of(request_of(body, limit), "up", {}, ())) == sent

    def test_is_what_its_kind_wants(self) -> None:
        sent = json.loads(b"".join(body_of(request_of(self.PLAIN, 20), "up", {"input": "entry"}, ("new",))))
        assert sent == {"entry": "hi", "model": "up", "max_output_tokens": 20}


@pytest.mark.parametrize(
    ("kind", "base", "path"),
    [
        ("openai", "/v1", "/v1/responses"), ("azure", "/openai/v1", "/openai/v1/responses"),
        ("azure", "", "/openai/v1/responses"), ("azure", "/openai", "/openai/v1/responses"),
    ],
)  # fmt: skip
def test_kinds_that_speak_them_are_asked_at_their_path(upstream: Upstream, kind: str, base: str, path: str) -> None:
    made: Any = adapter(kind)
    one = made(made.Settings(base_url=upstream.origin + base, api_key="k"), policy=AddressPolicy(allow_private=True))
    assert one.speaks("openai_responses")
    exchange = one.open(request_of(TestABody.PLAIN, 20), Deployment(id="d", provider_id="p", upstream_model="up"))
    exchange.receive()
    assert json.loads(exchange.body())["model"] == "ours" and exchange.kept_as == "resp_up"
    assert upstream.last.path == path
    one.close()


def test_other_kinds_are_asked_as_chats_unless_their_settings_say_otherwise() -> None:
    made: Any = adapter("vllm")
    policy = AddressPolicy(allow_private=True)
    assert not made(made.Settings(), policy=policy).speaks("openai_responses")
    assert made(made.Settings(responses=True), policy=policy).speaks("openai_responses")
    assert made(made.Settings(), policy=policy).speaks("openai_chat")


def test_an_event_of_half_a_pair_of_surrogates_is_passed_on() -> None:
    pieces = [b'data: {"type":"response.created","response":{}}\n\n', b'data: {"type":"\\ud83d"}\n\n']
    pieces.append(b'data: {"type":"response.completed","response":{"status":"completed"}}\n\n')
    exchange = ResponsesExchange(cast(Answer, Canned(pieces)), request_of(b"{}", None), None, 60.0)
    assert b'event: ?\ndata: {"type":"\\ud83d"}\n\n' in b"".join(exchange.events())
