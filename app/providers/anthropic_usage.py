"""What Anthropic tells of usage, and how it is told to clients of its dialect.

Cache reads and writes stand beside the input there; in `Usage` they are part of the prompt. Each is counted once.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from app.providers import usage
from app.providers.base import Usage
from app.providers.lenient_json import read_json

# What of a usage object is counted, by its own name.
INPUT, OUTPUT = "input_tokens", "output_tokens"
READ, WRITTEN = "cache_read_input_tokens", "cache_creation_input_tokens"
FIVE_MINUTES, ONE_HOUR = "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"
# Rounds of the model that the figures at the top leave out.
LEFT_OUT = ("compaction", "advisor_message")


class Bill:
    """The figures of one answer, as they were told last, each by itself."""

    def __init__(self) -> None:
        self._told: dict[str, Any] = {}
        self._more: dict[str, int] = {}
        self.is_split = True  # it is known how long what was written is kept

    def add(self, raw: bytes, *, is_first: bool = False) -> usage.Told:
        """Cache reads and writes stand beside the input there; here they are part of the prompt. What the first event
        says of the output is a beginning and no count."""
        said = read_json(raw)
        if not isinstance(said, dict):
            return usage.Told()
        self._told.update({name: value for name, value in said.items() if value is not None})
        if is_first:
            self._told.pop(OUTPUT, None)
        told = self._told
        iterations = told.get("iterations")
        rounds = [one for one in iterations if isinstance(one, dict)] if isinstance(iterations, list) else []
        figures = [told, *(one for one in rounds if one.get("type") in LEFT_OUT)]
        parts = [_prompt_of(one) for one in figures]
        self.is_split = all(part.is_split for part in parts)
        outputs = [count for one in figures if (count := usage.count_in(one.get(OUTPUT))) is not None]
        thought = _within(told, "output_tokens_details", "thinking_tokens")
        more = {
            "cache_write_tokens": sum(part.written for part in parts),
            "cache_write_1h_tokens": sum(part.written_1h for part in parts),
            "reasoning_tokens": thought,
        }
        # What was told before may turn out to be nothing.
        self._more = {name: count for name, count in more.items() if count or name in self._more}
        has_prompt = usage.count_in(told.get(INPUT)) is not None
        return usage.Told(
            prompt=sum(part.all for part in parts) if has_prompt else None,
            cached=sum(part.read for part in parts) if has_prompt else None,
            completion=sum(outputs) if OUTPUT in told and outputs else None,
            more=self._more,
        )

    @property
    def tier(self) -> bytes:
        """The service tier, JSON; a speed that is not the usual one has a price of its own too."""
        speed = self._told.get("speed")
        tier = speed if speed not in (None, "standard") else self._told.get("service_tier")
        return json.dumps(tier).encode()

    @property
    def unpriced(self) -> dict[str, int]:
        """What was done besides by the upstream's own tools."""
        tools = self._told.get("server_tool_use")
        found = {name: usage.count_in(value) for name, value in tools.items()} if isinstance(tools, dict) else {}
        return {name[:64]: count for name, count in list(found.items())[:20] if count}


class _Prompt(NamedTuple):
    all: int
    read: int
    written: int  # for five minutes
    written_1h: int
    is_split: bool


def _prompt_of(told: dict[str, Any]) -> _Prompt:
    fresh, read, written = (usage.count_in(told.get(name)) or 0 for name in (INPUT, READ, WRITTEN))
    short, long = (_within(told, "cache_creation", name) for name in (FIVE_MINUTES, ONE_HOUR))
    written = max(written, short + long)
    return _Prompt(fresh + read + written, read, written - long, long, is_split=written == short + long)


def _within(told: dict[str, Any], name: str, member: str) -> int:
    inner = told.get(name)
    return (usage.count_in(inner.get(member)) or 0) if isinstance(inner, dict) else 0


def usage_object(used: Usage) -> dict[str, Any]:
    """What was used, as this dialect tells it: what was cached stands beside the input, not within it."""
    short = used.more.get("cache_write_tokens", 0)
    long = used.more.get("cache_write_1h_tokens", 0)
    told: dict[str, Any] = {
        INPUT: max(used.prompt_tokens - used.cached_tokens - short - long, 0),
        WRITTEN: short + long,
        READ: used.cached_tokens,
        "cache_creation": {FIVE_MINUTES: short, ONE_HOUR: long},
        OUTPUT: used.completion_tokens,
    }
    if thought := used.more.get("reasoning_tokens"):
        told["output_tokens_details"] = {"thinking_tokens": thought}
    return told
