"""First calls to copy: a model's quickstart in curl, Python, JavaScript and LangChain, with this portal's own address.

A snippet reads the key from an environment variable. Only the page that shows a new key puts the key itself into it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pprint import pformat
from typing import Any, NamedTuple

from app.domain.catalog import Model
from app.web import links

VARIABLE = "PORTICO_API_KEY"


class Pane(NamedTuple):
    """One tab, as the macro `code_tabs` takes it. `path` is the file that the code belongs into."""

    label: str
    code: str
    language: str
    path: str | None = None


def base_url() -> str:
    """What applications use as `base_url`: the public address, or the address of this request."""
    return f"{links.origin()}/v1"


def can_stream(model: Model) -> bool:
    """Whether the quickstart of this model has two variants: non-streaming and streaming."""
    return capability_of(model.capabilities) in STREAMED


def quickstart(model: Model, key: str | None = None, *, stream: bool = False) -> list[Pane]:
    """A first call of `model`, using the API of its first capability."""
    return first_call(model.name, model.capabilities, key, stream=stream)


def first_call(model: str, capabilities: Sequence[str], key: str | None = None, *, stream: bool = False) -> list[Pane]:
    """A first call of a model of that name, using the API of the first of its capabilities."""
    capability = capability_of(capabilities)
    call = STREAMED.get(capability, CALLS[capability]) if stream else CALLS[capability]
    return _panes(call, model, key)


def capability_of(capabilities: Sequence[str]) -> str:
    """The first capability that a call can be written for; "" if there is none."""
    return next((capability for capability in capabilities if capability in CALLS), "")


def first_steps(key: str) -> list[Pane]:
    """What a key can always do without a certain model: list the models that it may call."""
    return _panes(LISTING, "", key)


def chat_call(body: dict[str, Any]) -> list[Pane]:
    """The very call of chat completions that `body` is, for programs; the key is read from the environment."""
    words = {"base": base_url(), "variable": VARIABLE, "javascript_key": f"process.env.{VARIABLE}"}
    text = json.dumps(body, ensure_ascii=False, indent=2)
    arguments = ",\n".join(
        f"    {name}={pformat(value, width=100, sort_dicts=False)}".replace("\n", "\n    ")
        for name, value in body.items()
    )
    curl = f"""curl {words["base"]}/chat/completions \\
  -H "Authorization: Bearer ${VARIABLE}" \\
  -H "Content-Type: application/json" \\
  -d {shlex.quote(text)}"""
    python = (
        f"completion = client.chat.completions.create(\n{arguments},\n)\nprint(completion.choices[0].message.content)"
    )
    javascript = f"""const completion = await client.chat.completions.create({text});
console.log(completion.choices[0].message.content);"""
    return [
        Pane("curl", curl, "bash"),
        Pane("Python", PYTHON_FROM_ENVIRONMENT % words + python, "python"),
        Pane("JavaScript", JAVASCRIPT % words + javascript, "javascript"),
    ]


class Call(NamedTuple):
    curl: str
    python: str
    javascript: str
    langchain: str | None = None


CHAT = Call(
    """curl %(base)s/chat/completions \\
  -H "Authorization: Bearer %(shell)s" \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "%(model)s",
    "messages": [{"role": "user", "content": "Hello!"}]
  }'""",
    """completion = client.chat.completions.create(
    model="%(model)s",
    messages=[{"role": "user", "content": "Hello!"}],
)
print(completion.choices[0].message.content)""",
    """const completion = await client.chat.completions.create({
  model: "%(model)s",
  messages: [{ role: "user", content: "Hello!" }],
});
console.log(completion.choices[0].message.content);""",
    """from langchain_openai import ChatOpenAI

model = ChatOpenAI(
    base_url="%(base)s",
    api_key=%(python_key)s,
    model="%(model)s",
)
print(model.invoke("Hello!").content)""",
)
STREAMED_CHAT = Call(
    """curl -N %(base)s/chat/completions \\
  -H "Authorization: Bearer %(shell)s" \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "%(model)s",
    "messages": [{"role": "user", "content": "Hello!"}],
    "stream": true
  }'""",
    """stream = client.chat.completions.create(
    model="%(model)s",
    messages=[{"role": "user", "content": "Hello!"}],
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)""",
    """const stream = await client.chat.completions.create({
  model: "%(model)s",
  messages: [{ role: "user", content: "Hello!" }],
  stream: true,
});
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}""",
    """from langchain_openai import ChatOpenAI

model = ChatOpenAI(
    base_url="%(base)s",
    api_key=%(python_key)s,
    model="%(model)s",
)
for chunk in model.stream("Hello!"):
    print(chunk.content, end="", flush=True)""",
)
COMPLETIONS = Call(
    """curl %(base)s/completions \\
  -H "Authorization: Bearer %(shell)s" \\
  -H "Content-Type: application/json" \\
  -d '{"model": "%(model)s", "prompt": "Once upon a time", "max_tokens": 64}'""",
    """completion = client.completions.create(
    model="%(model)s",
    prompt="Once upon a time",
    max_tokens=64,
)
print(completion.choices[0].text)""",
    """const completion = await client.completions.create({
  model: "%(model)s",
  prompt: "Once upon a time",
  max_tokens: 64,
});
console.log(completion.choices[0].text);""",
    """from langchain_openai import OpenAI

model = OpenAI(
    base_url="%(base)s",
    api_key=%(python_key)s,
    model="%(model)s",
    max_tokens=64,
)
print(model.invoke("Once upon a time"))""",
)
EMBEDDINGS = Call(
    """curl %(base)s/embeddings \\
  -H "Authorization: Bearer %(shell)s" \\
  -H "Content-Type: application/json" \\
  -d '{"model": "%(model)s", "input": "The quick brown fox"}'""",
    """answer = client.embeddings.create(
    model="%(model)s",
    input="The quick brown fox",
)
print(answer.data[0].embedding[:5])""",
    """const answer = await client.embeddings.create({
  model: "%(model)s",
  input: "The quick brown fox",
});
console.log(answer.data[0].embedding.slice(0, 5));""",
    """from langchain_openai import OpenAIEmbeddings

embeddings = OpenAIEmbeddings(
    base_url="%(base)s",
    api_key=%(python_key)s,
    model="%(model)s",
    check_embedding_ctx_length=False,
)
print(embeddings.embed_query("The quick brown fox")[:5])""",
)
LISTING = Call(
    """curl %(base)s/models \\
  -H "Authorization: Bearer %(shell)s\"""",
    """for model in client.models.list():
    print(model.id)""",
    """for await (const model of client.models.list()) {
  console.log(model.id);
}""",
)
TRANSCRIPTION = Call(
    """curl %(base)s/audio/transcriptions \\
  -H "Authorization: Bearer %(shell)s" \\
  -F 'model=%(model)s' \\
  -F file=@audio.wav""",
    """with open("audio.wav", "rb") as file:
    answer = client.audio.transcriptions.create(model="%(model)s", file=file)
print(answer.text)""",
    """import fs from "node:fs";

const answer = await client.audio.transcriptions.create({
  model: "%(model)s",
  file: fs.createReadStream("audio.wav"),
});
console.log(answer.text);""",
)
TRANSLATION = Call(*(code.replace("transcriptions", "translations") for code in TRANSCRIPTION[:3]))
SPEECH = Call(
    """curl %(base)s/audio/speech \\
  -H "Authorization: Bearer %(shell)s" \\
  -H "Content-Type: application/json" \\
  -d '{"model": "%(model)s", "voice": "alloy", "input": "The quick brown fox"}' \\
  --output speech.mp3""",
    """with client.audio.speech.with_streaming_response.create(
    model="%(model)s",
    voice="alloy",
    input="The quick brown fox",
) as speech:
    speech.stream_to_file("speech.mp3")""",
    """import fs from "node:fs";

const speech = await client.audio.speech.create({
  model: "%(model)s",
  voice: "alloy",
  input: "The quick brown fox",
});
fs.writeFileSync("speech.mp3", Buffer.from(await speech.arrayBuffer()));""",
)
IMAGES = Call(
    """curl %(base)s/images/generations \\
  -H "Authorization: Bearer %(shell)s" \\
  -H "Content-Type: application/json" \\
  -d '{"model": "%(model)s", "prompt": "A quick brown fox"}'""",
    """answer = client.images.generate(
    model="%(model)s",
    prompt="A quick brown fox",
)
print(answer.data[0].url or answer.data[0].b64_json)""",
    """const answer = await client.images.generate({
  model: "%(model)s",
  prompt: "A quick brown fox",
});
console.log(answer.data[0].url ?? answer.data[0].b64_json);""",
)
RERANK = Call(
    """curl %(base)s/rerank \\
  -H "Authorization: Bearer %(shell)s" \\
  -H "Content-Type: application/json" \\
  -d '{"model": "%(model)s", "query": "What is red?", "documents": ["A boat", "A strawberry"]}'""",
    """answer = client.post(
    "/rerank",
    cast_to=object,
    body={"model": "%(model)s", "query": "What is red?", "documents": ["A boat", "A strawberry"]},
)
print(answer["results"])""",
    """const answer = await client.post("/rerank", {
  body: { model: "%(model)s", query: "What is red?", documents: ["A boat", "A strawberry"] },
});
console.log(answer.results);""",
)
CALLS = {
    "chat": CHAT, "completions": COMPLETIONS, "embeddings": EMBEDDINGS, "transcription": TRANSCRIPTION,
    "translation": TRANSLATION, "speech": SPEECH, "images": IMAGES, "rerank": RERANK, "": LISTING,
}  # fmt: skip
STREAMED = {"chat": STREAMED_CHAT}

PYTHON = """from openai import OpenAI

client = OpenAI(
    base_url="%(base)s",
    api_key="%(key)s",
)

"""
PYTHON_FROM_ENVIRONMENT = """import os

from openai import OpenAI

client = OpenAI(
    base_url="%(base)s",
    api_key=os.environ["%(variable)s"],
)

"""
JAVASCRIPT = """import OpenAI from "openai";

const client = new OpenAI({
  baseURL: "%(base)s",
  apiKey: %(javascript_key)s,
});

"""


def _panes(call: Call, model: str, key: str | None) -> list[Pane]:
    words = {
        "base": base_url(),
        "model": model,
        "key": key or "",
        "variable": VARIABLE,
        "shell": key or f"${VARIABLE}",
        "javascript_key": f'"{key}"' if key else f"process.env.{VARIABLE}",
        "python_key": f'"{key}"' if key else f'os.environ["{VARIABLE}"]',
    }
    panes = [
        Pane("curl", call.curl % words, "bash"),
        Pane("Python", (PYTHON if key else PYTHON_FROM_ENVIRONMENT) % words + call.python % words, "python"),
        Pane("JavaScript", JAVASCRIPT % words + call.javascript % words, "javascript"),
    ]
    if call.langchain:
        panes.append(Pane("LangChain", ("" if key else "import os\n\n") + call.langchain % words, "python"))
    return panes
