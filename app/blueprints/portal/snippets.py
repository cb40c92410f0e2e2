"""First calls to copy: a model's quickstart in curl, Python and JavaScript, with this deployment's own address.

A snippet names the key by an environment variable; only the page that shows a new key writes the key itself into it.
"""

from __future__ import annotations

from typing import NamedTuple

from flask import request

from app import current
from app.domain.catalog import Model

VARIABLE = "PORTICO_API_KEY"


class Pane(NamedTuple):
    """One tab, as the macro `code_tabs` takes it."""

    label: str
    code: str
    language: str


def base_url() -> str:
    """What applications put into their `base_url`: the public address, or the one this page was asked under."""
    config = current.config()
    origin = config.base_url if config.server.public_url else request.host_url.rstrip("/")
    return f"{origin}/v1"


def quickstart(model: Model, key: str | None = None) -> list[Pane]:
    """A first call of `model`, in the way that its first capability is called."""
    ways = [capability for capability in model.capabilities if capability in CALLS]
    return _panes(CALLS[ways[0]] if ways else LISTING, model.name, key)


def first_steps(key: str) -> list[Pane]:
    """What a key without a certain model can always do: list what it may call."""
    return _panes(LISTING, "", key)


class Call(NamedTuple):
    curl: str
    python: str
    javascript: str


CHAT = Call(
    """curl %(base)s/chat/completions \\
  -H "Authorization: Bearer %(shell)s" \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "%(model)s",
    "messages": [{"role": "user", "content": "Hello!"}]
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
CALLS = {"chat": CHAT, "completions": COMPLETIONS, "embeddings": EMBEDDINGS}

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
    }
    return [
        Pane("curl", call.curl % words, "bash"),
        Pane("Python", (PYTHON if key else PYTHON_FROM_ENVIRONMENT) % words + call.python % words, "python"),
        Pane("JavaScript", JAVASCRIPT % words + call.javascript % words, "javascript"),
    ]
