"""Which client sent a request, as far as its `User-Agent` says. It is what the client claims: for people to read, never a
reason to allow or to refuse anything.

Some clients send what the library below them sends, as Cline and Continue do: they are known as that library, or not at all.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, get_args

Agent = Literal[
    "claude-code", "codex", "opencode", "cline", "continue", "openai-python", "openai-node", "anthropic-python",
    "anthropic-node", "langchain", "curl",
]  # fmt: skip
AGENTS: tuple[Agent, ...] = get_args(Agent)

LONGEST = 64  # characters that are looked at
# By the first product of the header, and by product and language.
_PRODUCTS: dict[str, Agent] = {
    "claude-cli": "claude-code", "opencode": "opencode", "cline": "cline", "continue": "continue", "langchain": "langchain",
    "curl": "curl",
    "openai/python": "openai-python", "asyncopenai/python": "openai-python", "openai/js": "openai-node",
    "anthropic/python": "anthropic-python", "asyncanthropic/python": "anthropic-python", "anthropic/js": "anthropic-node",
}  # fmt: skip


def agent_of(user_agent: str) -> Agent | None:
    """The client that a `User-Agent` names; None for one that is not known."""
    return _recognised(user_agent[:LONGEST])


@lru_cache(1024)
def _recognised(user_agent: str) -> Agent | None:
    product = user_agent.partition(" ")[0].lower()
    name = product.partition("/")[0]
    if name.startswith("codex"):  # codex_cli_rs, codex_exec, codex_vscode
        return "codex"
    return _PRODUCTS.get(name) or _PRODUCTS.get(product)
