"""The clients that people connect, and the block that each is configured with: one row a client.

A block reads the key's secret from an environment variable. Only the page that shows a new secret puts the secret itself into
it. Every block works as it stands: `tests/pages/test_clients.py` reads each in its own syntax.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from app import current
from app.domain.catalog import Model
from app.pages import snippets
from app.pages.snippets import VARIABLE, Pane
from app.runtime.agents import Agent
from app.web import links

HELLO = "Say hello."
PLACEHOLDER = "MODEL"  # where no model can be named


class Choice(NamedTuple):
    """A model as a block names it. Limits are in tokens."""

    name: str
    capabilities: tuple[str, ...]
    context_window: int | None = None
    max_output: int | None = None

    @classmethod
    def of(cls, model: Model | None) -> Choice:
        """The model, or a placeholder for one that chats."""
        if model is None:
            return cls(PLACEHOLDER, ("chat",))
        return cls(model.name, tuple(model.capabilities), model.context_window, model.max_output_tokens)


class Setup(NamedTuple):
    """What a block is filled with. `small` is the model for side tasks such as titles."""

    model: Choice
    small: Choice
    key_name: str | None = None
    secret: str | None = None

    @property
    def origin(self) -> str:
        return links.origin()

    @property
    def base_url(self) -> str:
        return snippets.base_url()

    @property
    def in_shell(self) -> str:
        """The secret as a shell takes it."""
        return self.secret or f'"${VARIABLE}"'

    def heading(self, sign: str = "#") -> str:
        """A comment that says whose secret the block uses."""
        if self.secret:
            return f"{sign} Key: {self.key_name}\n"
        whose = f"your key {self.key_name}" if self.key_name else "one of your keys"
        return f"{sign} ${VARIABLE}: the secret of {whose}\n"


class Client(NamedTuple):
    """A client.

    `agents` are the names by which its calls are recognised, with None where they may not be. `fits` are the capabilities of
    which a model must have one, None for any. `first` is a command that makes a first call, `note` what else people need to
    know.
    """

    id: str
    title: str
    kind: Literal["file", "env", "code"]
    write: Callable[[Setup], list[Pane]]
    agents: tuple[Agent | None, ...]
    note: str
    path: str | None = None
    first: str | None = None
    fits: tuple[str, ...] | None = ("chat",)
    uses_small: bool = False

    def suits(self, choice: Choice) -> bool:
        """Whether this client can use a model."""
        return self.fits is None or not set(self.fits).isdisjoint(choice.capabilities)

    def capability(self, choice: Choice) -> str:
        """The capability of a model that this client uses."""
        return "chat" if self.fits == ("chat",) else snippets.capability_of(choice.capabilities)

    def panes(self, setup: Setup) -> list[Pane]:
        """The block, in each of its languages; none for a model that does not suit."""
        return self.write(setup) if self.suits(setup.model) else []


# --- blocks ----------------------------------------------------------------------------------------------------------


def _quoted(text: str) -> str:
    """A string of JSON, which is one of TOML, YAML and Python too."""
    return json.dumps(text, ensure_ascii=False)


def _claude_code(setup: Setup) -> list[Pane]:
    model, small = shlex.quote(setup.model.name), shlex.quote(setup.small.name)
    variables = {
        "ANTHROPIC_BASE_URL": shlex.quote(setup.origin),
        "ANTHROPIC_AUTH_TOKEN": setup.in_shell,
        "ANTHROPIC_MODEL": model,
        "ANTHROPIC_DEFAULT_OPUS_MODEL": model,
        "ANTHROPIC_DEFAULT_SONNET_MODEL": model,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": small,
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": setup.model.context_window,
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": setup.model.max_output,
    }
    lines = [f"export {name}={value}" for name, value in variables.items() if value is not None]
    return [Pane("Claude Code", setup.heading() + "\n".join(lines), "bash")]


def _codex(setup: Setup) -> list[Pane]:
    window = f"model_context_window = {setup.model.context_window}\n" if setup.model.context_window else ""
    credential = (
        f'http_headers = {{ Authorization = "Bearer {setup.secret}" }}' if setup.secret else f'env_key = "{VARIABLE}"'
    )
    text = f"""\
{setup.heading()}model = {_quoted(setup.model.name)}
model_provider = "portico"
{window}
[model_providers.portico]
name = {_quoted(current.config().portal.name)}
base_url = {_quoted(setup.base_url)}
{credential}
wire_api = "responses"
supports_websockets = false"""
    return [Pane("Codex", text, "toml")]


def _opencode(setup: Setup) -> list[Pane]:
    brand = current.config().portal.name
    document = {
        "model": f"portico/{setup.model.name}",
        "small_model": f"portico/{setup.small.name}",
        "provider": {
            "portico": {
                "npm": "@ai-sdk/openai-compatible",
                "name": f"{brand} ({setup.key_name})" if setup.key_name else brand,
                "options": {"baseURL": setup.base_url, "apiKey": setup.secret or f"{{env:{VARIABLE}}}"},
                "models": {choice.name: _opencode_limit(choice) for choice in (setup.model, setup.small)},
            }
        },
    }
    return [Pane("OpenCode", json.dumps(document, indent=2, ensure_ascii=False), "json")]


def _opencode_limit(choice: Choice) -> dict[str, Any]:
    """OpenCode takes both limits or none."""
    if choice.context_window is None or choice.max_output is None:
        return {}
    return {"limit": {"context": choice.context_window, "output": choice.max_output}}


def _cline(setup: Setup) -> list[Pane]:
    model, base_url = shlex.quote(setup.model.name), shlex.quote(setup.base_url)
    command = f"{setup.heading()}cline auth -p openai-compatible -k {setup.in_shell} -m {model} -b {base_url}"
    return [Pane("Cline", command, "bash")]


def _continue(setup: Setup) -> list[Pane]:
    limits = {"contextLength": setup.model.context_window, "maxTokens": setup.model.max_output}
    options = "".join(f"      {name}: {value}\n" for name, value in limits.items() if value is not None)
    if options:
        options = "    defaultCompletionOptions:\n" + options
    name = _quoted(setup.model.name)
    text = f"""\
{setup.heading()}name: {_quoted(current.config().portal.name)}
version: 0.0.1
schema: v1
models:
  - name: {name}
    provider: openai
    model: {name}
    apiBase: {_quoted(setup.base_url)}
    apiKey: {setup.secret or f"${{{{ secrets.{VARIABLE} }}}}"}
    roles: [chat, edit, apply]
{options}"""
    return [Pane("Continue", text.rstrip("\n"), "yaml")]


def _anthropic_python(setup: Setup) -> list[Pane]:
    imports, key = "import os\n\n", f'os.environ["{VARIABLE}"]'
    if setup.secret:
        imports, key = "", _quoted(setup.secret)
    text = f"""\
{setup.heading()}{imports}from anthropic import Anthropic

client = Anthropic(
    base_url={_quoted(setup.origin)},
    api_key={key},
)

message = client.messages.create(
    model={_quoted(setup.model.name)},
    max_tokens=1024,
    messages=[{{"role": "user", "content": "Hello!"}}],
)
print("".join(block.text for block in message.content if block.type == "text"))"""
    return [Pane("Anthropic SDK", text, "python")]


def _sdk(*labels: str) -> Callable[[Setup], list[Pane]]:
    """The quickstart in some of its languages."""

    def write(setup: Setup) -> list[Pane]:
        panes = snippets.first_call(setup.model.name, setup.model.capabilities, setup.secret)
        return [
            pane._replace(code=setup.heading("//" if pane.language == "javascript" else "#") + pane.code)
            for pane in panes
            if pane.label in labels
        ]

    return write


# --- rows ------------------------------------------------------------------------------------------------------------

CLIENTS = (
    Client(
        "claude-code", "Claude Code", "env", _claude_code, ("claude-code",),
        "Run these lines in the shell in which you start Claude Code. To keep them, put them into your shell’s profile.",
        first=f'claude -p "{HELLO}"', uses_small=True,
    ),
    Client(
        "codex", "Codex", "file", _codex, ("codex",),
        "Codex reads this file when it starts.", "~/.codex/config.toml", f'codex exec "{HELLO}"',
    ),
    Client(
        "opencode", "OpenCode", "file", _opencode, ("opencode",),
        "Put it into this file, or into opencode.json of one project.", "~/.config/opencode/opencode.json",
        f'opencode run "{HELLO}"', uses_small=True,
    ),
    Client(
        "cline", "Cline", "code", _cline, ("cline", "openai-node", None),
        "This command sets up the command line. In the editor’s extension, choose the provider OpenAI Compatible and enter"
        " the same base URL, key and model.", first=f'cline "{HELLO}"',
    ),
    Client(
        "continue", "Continue", "file", _continue, ("continue", "openai-node", None),
        f"The command line reads {VARIABLE} from the environment, the editor’s extension from ~/.continue/.env.",
        "~/.continue/config.yaml", f'cn -p "{HELLO}"',
    ),
    Client(
        "openai-python", "OpenAI SDK", "code", _sdk("Python", "JavaScript"), ("openai-python", "openai-node"),
        "Install it with pip install openai or npm install openai.", fits=None,
    ),
    Client(
        "anthropic-python", "Anthropic SDK", "code", _anthropic_python, ("anthropic-python", "anthropic-node"),
        "Install it with pip install anthropic.",
    ),
    Client(
        "langchain", "LangChain", "code", _sdk("LangChain"), ("langchain", "openai-python"),
        "Install it with pip install langchain-openai.", fits=("chat", "completions", "embeddings"),
    ),
    Client(
        "curl", "curl", "code", _sdk("curl"), ("curl", None), "Run it in a shell.", fits=None,
    ),
)  # fmt: skip
BY_ID = {client.id: client for client in CLIENTS}
