"""Clients are told apart by what they really send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.runtime.agents import AGENTS, agent_of


@pytest.mark.parametrize(
    ("sent", "agent"),
    [
        ("claude-cli/2.1.332 (external, sdk-cli)", "claude-code"),
        ("codex_exec/0.171.0 (Debian 12.0.0; x86_64) dumb (codex_exec; 0.171.0)", "codex"),
        ("codex_cli_rs/0.160.1 (Mac OS 15.5.0; arm64) iTerm.app/3.5.14", "codex"),
        ("opencode/1.18.33 ai-sdk/provider-utils/4.0.23 runtime/bun/1.3.14", "opencode"),
        ("Cline/3.50.0", "cline"),
        ("OpenAI/Python 3.52.0", "openai-python"),
        ("AsyncOpenAI/Python 3.52.0", "openai-python"),
        ("OpenAI/JS 6.9.1", "openai-node"),
        ("Anthropic/Python 2.14.0", "anthropic-python"),
        ("AsyncAnthropic/Python 2.14.0", "anthropic-python"),
        ("Anthropic/JS 0.71.0", "anthropic-node"),
        ("curl/8.5.0", "curl"),
        ("ai-sdk/openai-compatible/3.0.37 ai-sdk/provider-utils/5.0.30 runtime/bun/1.3.13", None),
        ("ls/JS 5.23.2", None),
        ("Mozilla/5.0 (X11; Linux x86_64)", None),
        ("", None),
    ],
)
def test_a_client_is_known_by_its_user_agent(sent: str, agent: str | None) -> None:
    assert agent_of(sent) == agent


@given(st.text(max_size=300))
def test_any_other_header_is_nobody_or_one_of_the_known(sent: str) -> None:
    assert agent_of(sent) in (None, *AGENTS)
