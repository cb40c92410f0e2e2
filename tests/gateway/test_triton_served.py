"""A real Triton behind OpenAI's API: a gateway of gevent's, asked over sockets, over both transports alike."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import requests
from openai import APIStatusError, OpenAI

from app.directory import Deployment, Price
from app.metering import money
from app.metering.usage import UsageEvent
from tests.services.gate import PRICE, Gate
from tests.services.sounds import wav
from tests.services.triton import Triton
from tests.services.valkey import ValkeyServer
from tests.services.waiting import PATIENCE_S, until

pytestmark = [pytest.mark.services, pytest.mark.slow]

SERVED: dict[str, dict[str, Any]] = {
    "generator": {}, "trtllm": {}, "steady": {}, "embedder": {}, "embedder_unbatched": {}, "listener": {}, "hearer": {},
    "missing": {},
    "wrong": {"upstream": "generator", "settings": {"inputs": {"prompt": "nothing"}}},
    "unlimited": {"upstream": "trtllm", "settings": {"constants": {"top_k": 7}}},
    "chatty": {"upstream": "generator", "settings": {
        "preset": "vllm",
        "chat_template": "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}<assistant>",
    }},
}  # fmt: skip
BY_LENGTH = Price(id="price", rates={"per_audio_minute": money.NANO})


@pytest.fixture(scope="module")
def world(valkey_server: ValkeyServer, triton: Triton) -> Iterator[tuple[Gate, str]]:
    """A gateway with every model at both transports, as `grpc/<name>` and `http/<name>`, and a key for all of them."""
    gate = Gate(valkey_server.url, CONFIG_GATEWAY_KEEP_ALIVE_S="1")
    gate.begin()
    capabilities = ("chat", "completions", "embeddings", "transcription")
    for transport, address in (("grpc", triton.grpc), ("http", triton.http)):
        gate.provider(transport, "triton", base_url=address, timeout_s=20)
        for name, about in SERVED.items():
            price = BY_LENGTH if name in ("listener", "hearer") else PRICE
            gate.model(f"{transport}/{name}", capabilities=capabilities, max_output_tokens=1000, price=price)
            deployment = Deployment(
                id=f"{transport}-{name}", provider_id=f"provider-{transport}",
                upstream_model=about.get("upstream", name), settings=about.get("settings", {}),
            )  # fmt: skip
            made = gate.models[f"{transport}/{name}"]
            gate.models[f"{transport}/{name}"] = msgspec.structs.replace(made, deployments=(deployment,))
    gate.publish()
    key = gate.key()
    try:
        yield gate.start(), key
    finally:
        print(gate.log()[-3000:])
        gate.close()


@pytest.fixture
def gate(world: tuple[Gate, str]) -> Gate:
    return world[0]


@pytest.fixture
def client(world: tuple[Gate, str]) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{world[0].url}/v1", api_key=world[1], max_retries=0, timeout=PATIENCE_S) as made:
        yield made


def event_of(gate: Gate, answer: Any) -> UsageEvent:
    """What a call was charged as."""
    id = answer.headers["x-request-id"]
    until(lambda: any(event.request_id == id for event in gate.events(0)), gate.log)
    (event,) = [event for event in gate.events(0) if event.request_id == id]
    return event


both = pytest.mark.parametrize("transport", ["grpc", "http"])


def say(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def stream(client: OpenAI, model: str, text: str, **more: Any) -> tuple[list[str], Any, str | None]:
    """Pieces of text, usage and finish of a stream."""
    chunks = list(
        client.chat.completions.create(
            model=model, messages=say(text), stream=True, stream_options={"include_usage": True}, **more
        )
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    finishes = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    return [piece for piece in pieces if piece], chunks[-1].usage, finishes[-1] if finishes else None


@both
def test_a_chat_is_answered_whole_and_as_a_stream_with_the_usage_that_the_model_tells(client, transport):
    whole = client.chat.completions.create(model=f"{transport}/generator", messages=say("one two three"))
    assert whole.choices[0].message.content == "one two three" and whole.choices[0].finish_reason == "stop"
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (3, 3)
    pieces, usage, finish = stream(client, f"{transport}/generator", "count:4")
    assert (pieces, finish) == (["0 ", "1 ", "2 ", "3 "], "stop")
    assert (usage.prompt_tokens, usage.completion_tokens) == (1, 4)
    pieces, usage, finish = stream(client, f"{transport}/generator", "count:9", max_tokens=3)
    assert (pieces, finish, usage.completion_tokens) == (["0 ", "1 ", "2 "], "length", 3)


def test_both_transports_give_the_same_pieces_and_the_same_usage(client):
    for model, text in (("generator", "count:12"), ("trtllm", "ein Fuß, 'n Ömchen & 👋🏽"), ("steady", "c b a")):
        over_grpc, over_http = (stream(client, f"{transport}/{model}", text) for transport in ("grpc", "http"))
        assert over_grpc == over_http and over_grpc[0]


@both
def test_sampling_parameters_are_sent_when_they_are_given_and_not_otherwise(client, transport):
    given = {"temperature": 0.5, "seed": 3, "stop": ["x"], "max_tokens": 50, "top_p": 0.25}
    pieces, _, _ = stream(client, f"{transport}/generator", "sampling", **given)
    assert json.loads("".join(pieces)) == given
    pieces, _, _ = stream(client, f"{transport}/generator", "sampling")
    assert json.loads("".join(pieces)).keys() <= {"max_tokens"}
    pieces, _, _ = stream(client, f"{transport}/trtllm", "settings", **given)
    assert json.loads("".join(pieces)) == {
        "max_tokens": [50], "stop_words": ["x"], "top_p": [0.25], "temperature": [0.5], "random_seed": [3],
        "stream": [True],
    }  # fmt: skip
    pieces, _, _ = stream(client, f"{transport}/unlimited", "settings", max_tokens=9)
    assert json.loads("".join(pieces)) == {"max_tokens": [9], "top_k": [7], "stream": [True]}


@both
def test_a_model_that_tells_no_usage_is_counted_here_and_says_so(client, gate, transport):
    answer = client.chat.completions.with_raw_response.create(
        model=f"{transport}/steady", messages=say("three blind mice"), max_tokens=2
    )
    said = answer.parse()
    assert said.choices[0].message.content == "mice blind"
    assert said.usage.prompt_tokens >= 3 and said.usage.completion_tokens == 2
    event = event_of(gate, answer)
    assert event.estimated and event.cost_nano > 0


@both
def test_texts_are_gone_on_with(client, transport):
    model = f"{transport}/generator"
    whole = client.completions.create(model=model, prompt=["one two", "count:3"], max_tokens=5)
    assert [(one.text, one.finish_reason) for one in whole.choices] == [("one two", "stop"), ("0 1 2 ", "stop")]
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (3, 5)
    chunks = list(client.completions.create(model=model, prompt="count:9", max_tokens=3, stream=True))
    assert [one.choices[0].text for one in chunks] == ["0 ", "1 ", "2 ", ""]
    assert chunks[-1].choices[0].finish_reason == "length"
    with pytest.raises(APIStatusError) as refused:
        client.completions.create(model=model, prompt="x", n=2)
    assert refused.value.status_code == 400 and refused.value.param == "n"


@both
def test_a_chat_template_makes_the_prompt(client, transport):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello there"}]
    answer = client.chat.completions.create(model=f"{transport}/chatty", messages=messages)
    assert answer.choices[0].message.content == "<system> Be brief. <user> Hello there <assistant>"
    answer = client.chat.completions.create(model=f"{transport}/generator", messages=messages)
    assert answer.choices[0].message.content == "System: Be brief.\n\nUser: Hello there\n\nAssistant:"


@both
@pytest.mark.parametrize("model", ["embedder", "embedder_unbatched"])
def test_texts_become_vectors(client, transport, model):
    texts = [f"text {number}" for number in range(70)]  # more than a batch
    answer = client.embeddings.create(model=f"{transport}/{model}", input=texts, encoding_format="float")
    assert len(answer.data) == 70 and {len(one.embedding) for one in answer.data} == {384}
    alone = client.embeddings.create(model=f"{transport}/{model}", input="text 65")  # in base64, as the client asks
    assert alone.data[0].embedding == pytest.approx(answer.data[65].embedding, abs=1e-6)
    assert sum(number * number for number in alone.data[0].embedding) == pytest.approx(1, abs=1e-3)
    assert alone.usage.prompt_tokens > 0


@both
def test_sounds_become_text(client, gate, transport):
    sound = ("speech.wav", wav(2.5, 8000))
    answer = client.audio.transcriptions.with_raw_response.create(
        model=f"{transport}/listener", file=sound, language="de"
    )
    assert answer.parse().text == "A sound of 2.50 seconds in de."
    event = event_of(gate, answer)
    assert event.audio_ms == 2500 and not event.estimated
    text = client.audio.transcriptions.create(model=f"{transport}/hearer", file=sound)
    assert text.text == "20000 samples at 8000, mean 0.00"
    told = client.audio.transcriptions.create(model=f"{transport}/listener", file=sound, response_format="verbose_json")
    assert (told.duration, told.segments[0].text) == (2.5, told.text)
    with pytest.raises(APIStatusError) as refused:
        client.audio.transcriptions.create(model=f"{transport}/hearer", file=("x.mp3", b"no sound at all" * 100))
    assert refused.value.status_code == 400 and "WAV" in refused.value.message


@both
@pytest.mark.parametrize(
    ("model", "text", "words"),
    [
        ("missing", "x", "unknown model"),
        ("wrong", "x", "has no input 'nothing'; it has text_input (BYTES)"),
        ("steady", "fail", "the model is out of sorts"),
        ("generator", "count:3 fail:0", "out of memory after 0"),
    ],
)
@pytest.mark.parametrize("streams", [False, True])
def test_what_goes_wrong_is_said_in_openai_s_shape(client, transport, model, text, words, streams):
    with pytest.raises(APIStatusError) as failed:
        client.chat.completions.create(model=f"{transport}/{model}", messages=say(text), stream=streams)
    assert failed.value.status_code == 502 and words in failed.value.message
    assert failed.value.body["type"] == "upstream_error"


@both
def test_a_model_that_fails_in_the_middle_of_a_stream_ends_it_with_an_error_event(world, transport):
    events = list(open_stream(world, f"{transport}/generator", "count:5 fail:2").events())
    assert [event["choices"][0]["delta"].get("content") for event in events[:-1]][1:] == ["0 ", "1 "]
    assert "out of memory after 2" in events[-1]["error"]["message"]


class OpenStream:
    """A stream on a socket of one's own."""

    def __init__(self, port: int, key: str, model: str, text: str) -> None:
        body = {"model": model, "messages": say(text), "stream": True}
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        self.asked_at = time.monotonic()
        self.connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Authorization": f"Bearer {key}"})
        self.answer = self.connection.getresponse()

    def events(self) -> Iterator[Any]:
        while line := self.answer.readline():
            if line.startswith(b"data: {"):
                yield json.loads(line[6:])
        self.connection.close()


def open_stream(world: tuple[Gate, str], model: str, text: str) -> OpenStream:
    return OpenStream(world[0].port, world[1], model, text)


@both
@pytest.mark.parametrize("streams", [False, True])
def test_a_client_that_hangs_up_ends_the_model_s_work_within_a_second(world, triton, transport, streams):
    name = f"count:600 wait:50 {transport} {time.monotonic_ns()}"
    body = json.dumps({"model": f"{transport}/generator", "messages": say(name), "stream": streams})
    connection = http.client.HTTPConnection("127.0.0.1", world[0].port, timeout=PATIENCE_S)
    connection.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {world[1]}"})
    until(lambda: any(text == f"begin {name[:40]}" for _, text in triton.told()), triton.log)
    if streams:
        connection.getresponse().readline()
    left_at = time.monotonic()
    connection.close()
    cancelled = f"cancelled {name[:40]}"
    until(lambda: any(text == cancelled for _, text in triton.told()), triton.log)
    (at,) = [at for at, text in triton.told() if text == cancelled]
    assert at - left_at < 1.0


@both
def test_a_silent_stream_gives_signs_of_life_and_goes_on(world, transport):
    opened = open_stream(world, f"{transport}/generator", "count:2 wait:2500")
    lines = [line for line in opened.answer.read().splitlines() if line]
    said = [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
    assert "".join(one["choices"][0]["delta"].get("content") or "" for one in said) == "0 1 "
    assert any(line.startswith(b":") for line in lines) and lines[-1] == b"data: [DONE]"


def at_once(count: int, work: Callable[[], Any]) -> list[Any]:
    results: list[Any] = [None] * count

    def run(place: int) -> None:
        results[place] = work()

    threads = [threading.Thread(target=run, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    return results


@both
def test_forty_streams_run_beside_one_another(world, client, transport):
    """Each takes a second by itself: none waits for another to end before its first token comes."""
    client.chat.completions.create(model=f"{transport}/generator", messages=say("warm up"))

    def run() -> tuple[float, float, int]:
        opened = open_stream(world, f"{transport}/generator", "count:20 wait:50")
        first, count = None, 0
        for event in opened.events():
            if event["choices"] and event["choices"][0]["delta"].get("content"):
                first = first or time.monotonic()
                count += 1
        return (first or 0) - opened.asked_at, time.monotonic() - opened.asked_at, count

    seen = at_once(40, run)
    assert [count for _, _, count in seen] == [20] * 40
    one_by_one = 40 * 20 * 0.05
    assert max(first for first, _, _ in seen) < one_by_one / 8
    assert max(whole for _, whole, _ in seen) < one_by_one / 4


@both
def test_a_server_that_is_killed_cuts_its_streams_and_serves_again_when_it_is_back(world, client, triton, transport):
    opened = open_stream(world, f"{transport}/generator", "count:200 wait:50")
    events = opened.events()
    next(events), next(events)
    triton.kill()
    try:
        last = list(events)[-1]
        assert last["error"]["type"] == "upstream_error" and last["error"]["code"] == "upstream_cut"
        with pytest.raises(APIStatusError) as failed:
            client.chat.completions.create(model=f"{transport}/generator", messages=say("x"))
        assert failed.value.status_code == 502
    finally:
        triton.start()
    answer = client.chat.completions.create(model=f"{transport}/generator", messages=say("back again"))
    assert answer.choices[0].message.content == "back again"


def test_models_of_the_settings_file_are_served_after_a_start(start_portico, triton, tmp_path):
    models = {
        "generator": {"host": "127.0.0.1", "port": triton.grpc_port},
        "embedder": {"host": "127.0.0.1", "port": triton.grpc_port, "type": "embeddings"},
        "steady": {"host": triton.http, "args": {"prompt": "prompt"}, "response": "generated"},
    }
    file = tmp_path / "config.yml"
    file.write_text(json.dumps({"server": {"environment": "development"}, "models": models}))
    portico = start_portico(CONFIG_FILE=str(file))
    admin = requests.Session()
    form = {"username": "admin", "password": portico.admin_password}
    token = admin.post(f"{portico.url}/token", form, timeout=PATIENCE_S).json()["access_token"]
    admin.headers["Authorization"] = f"Bearer {token}"
    for name in models:
        assert admin.post(f"{portico.url}/api/subscriptions", json={"model": name}, timeout=PATIENCE_S).ok
    key = admin.post(f"{portico.url}/api/keys", json={"name": "app"}, timeout=PATIENCE_S).json()["key"]
    with OpenAI(base_url=f"{portico.url}/v1", api_key=key, max_retries=0, timeout=PATIENCE_S) as client:
        assert stream(client, "generator", "count:3")[0] == ["0 ", "1 ", "2 "]
        answer = client.chat.completions.create(model="steady", messages=say("three blind mice"))
        assert answer.choices[0].message.content == "mice blind three"
        assert len(client.embeddings.create(model="embedder", input="hello").data[0].embedding) == 384
    providers = admin.get(f"{portico.url}/api/providers", timeout=PATIENCE_S).json()["data"]
    (over_grpc,) = [one for one in providers if one["config"].get("base_url") == triton.grpc]
    tried = admin.post(
        f"{portico.url}/api/providers/{over_grpc['id']}/test",
        json={"model": "generator", "prompt": "hi"},
        timeout=PATIENCE_S,
    ).json()
    assert tried["result"] == "ok" and "embedder" in tried["models"]


def test_a_worker_has_made_its_adapters_before_it_serves(valkey_server, tmp_path):
    """So that nobody waits while gRPC is loaded, and the log tells at the start whether it can be used."""
    (tmp_path / "grpc").mkdir()
    (tmp_path / "grpc" / "__init__.py").write_text("raise ImportError('not on this machine')")
    gate = Gate(valkey_server.url, PYTHONPATH=str(tmp_path))
    gate.begin()
    gate.provider("triton", "triton", base_url="grpc://127.0.0.1:8001")
    try:
        gate.start()
        until(lambda: "gRPC can't be used: HTTP takes over" in gate.log(), gate.log)
    finally:
        gate.close()
