"""What Gemini says and hears, in the neutral language."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from app.providers.conversation import (
    Conversation,
    FinishReason,
    Media,
    Part,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)  # fmt: skip
from app.providers.lenient_json import read_json

REASONS: dict[str, FinishReason] = {
    "STOP": "stop", "MAX_TOKENS": "length", "SAFETY": "content_filter", "RECITATION": "content_filter",
    "LANGUAGE": "content_filter", "BLOCKLIST": "content_filter", "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter", "IMAGE_SAFETY": "content_filter", "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter", "MODEL_ARMOR": "content_filter",
}  # fmt: skip
# What the model said is no answer and no call of a tool.
FAILURES = frozenset(
    ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE",
     "MALFORMED_RESPONSE")
)  # fmt: skip
UNSPECIFIED = "FINISH_REASON_UNSPECIFIED"

# What is taken beside what all dialects have words for.
TAKES = frozenset(("seed", "top_k", "frequency_penalty", "presence_penalty", "json_object", "service_tier"))
_CONFIGURED = {
    "seed": "seed", "top_k": "topK", "frequency_penalty": "frequencyPenalty", "presence_penalty": "presencePenalty",
}  # fmt: skip
_TIERS = ("flex", "priority")

# Ids of calls to which Gemini gave none: it gets none back.
UNNAMED = "unnamed_"
# Stands for the signature of a call whose own is lost, or which another model made.
UNSIGNED = "skip_thought_signature_validator"

BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 32_768, "max": 32_768}
LEVELS = ("minimal", "low", "medium", "high")
_OLD = re.compile(r"gemini-(?:1|2\.0|pro-vision)")
_THOUGHTLESS = re.compile(r"-image|-tts|embedding")

# By the endings of addresses: the type of a file there goes with it.
_MEDIA_TYPES = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif",
    "heic": "image/heic", "heif": "image/heif", "pdf": "application/pdf", "mp3": "audio/mp3", "wav": "audio/wav",
    "flac": "audio/flac", "ogg": "audio/ogg", "aac": "audio/aac", "mp4": "video/mp4",
}  # fmt: skip

Remembered = Callable[[str], str | None]  # the signature of a call by its id


class Traits(NamedTuple):
    """What a model takes, by its name at the provider. Its thoughts have a `budget` of tokens, or a level."""

    budget: range | None = None
    can_be_off: bool = True  # a budget of 0 is taken
    levels: tuple[str, ...] = ()
    wants_signatures: bool = False  # a call without one is refused
    hears_media: bool = False  # in what a tool gave


def traits_of(model: str) -> Traits:
    """Newer models are the rule, older ones are known by their names."""
    if "gemini" not in model or _OLD.search(model):
        return Traits()
    can_think, is_pro = not _THOUGHTLESS.search(model), "pro" in model
    if "gemini-2.5" in model:
        if not can_think:
            return Traits()
        least = 128 if is_pro else 512 if "lite" in model else 1
        return Traits(budget=range(least, 32_769 if is_pro else 24_577), can_be_off=not is_pro)
    levels = ("low", "high") if "gemini-3-pro" in model else LEVELS[1:] if is_pro else LEVELS
    return Traits(levels=levels if can_think else (), wants_signatures=True, hears_media=True)


def body_of(
    conversation: Conversation, model: str, limit: int | None, remembered: Remembered, *, signs: bool = True
) -> dict[str, Any]:
    """The body of a request. `limit` is that of the answer with its thoughts, in tokens; without `signs` no signature goes
    back that the model may refuse."""
    traits = traits_of(model)
    systems = [{"text": part.text} for part in _said(conversation, "system") if isinstance(part, Text) and part.text]
    contents = _contents(conversation, traits, remembered, signs)
    if not contents:  # it answers nothing but questions
        contents, systems = [{"role": "user", "parts": systems}] if systems else [], []
    body: dict[str, Any] = {"contents": contents}
    if systems:
        body["systemInstruction"] = {"parts": systems}
    if conversation.tools:
        body["tools"] = [{"functionDeclarations": [_tool(tool) for tool in conversation.tools]}]
        if conversation.choice is not None:
            body["toolConfig"] = {"functionCallingConfig": _choice(conversation.choice)}
    if config := _config(conversation, traits, limit):
        body["generationConfig"] = config
    if (tier := conversation.more.get("service_tier")) in _TIERS:
        body["serviceTier"] = tier
    return body


def _said(conversation: Conversation, role: str) -> list[Part]:
    return [part for turn in conversation.turns if turn.role == role for part in turn.parts]


def _config(conversation: Conversation, traits: Traits, limit: int | None) -> dict[str, Any]:
    more = conversation.more
    config: dict[str, Any] = {theirs: more[name] for name, theirs in _CONFIGURED.items() if name in more}
    if limit is not None:
        config["maxOutputTokens"] = limit
    if conversation.temperature is not None:
        config["temperature"] = conversation.temperature
    if conversation.top_p is not None:
        config["topP"] = conversation.top_p
    if conversation.stop:
        config["stopSequences"] = list(conversation.stop)
    if conversation.schema is not None:
        config |= {"responseMimeType": "application/json", "responseJsonSchema": conversation.schema.schema}
    elif more.get("json_object"):
        config["responseMimeType"] = "application/json"
    if conversation.effort is not None and (thinking := _thinking(conversation.effort, traits, limit)):
        config["thinkingConfig"] = thinking
    return config


def _thinking(effort: str, traits: Traits, limit: int | None) -> dict[str, Any]:
    """As much thinking as the client asked for. Thoughts count to the limit of the answer."""
    if traits.budget is not None:
        budget = min(BUDGETS.get(effort, BUDGETS["high"]), traits.budget[-1])
        if limit is not None:
            budget = min(budget, limit - 1)
        if budget < traits.budget[0]:
            budget = 0 if traits.can_be_off else traits.budget[0]
        return {"thinkingBudget": budget, "includeThoughts": budget > 0 and effort != "none"}
    if traits.levels:
        most = 0 if effort == "none" else LEVELS.index(effort) if effort in LEVELS else len(LEVELS) - 1
        level = next((one for one in reversed(traits.levels) if LEVELS.index(one) <= most), traits.levels[0])
        return {"thinkingLevel": level.upper(), "includeThoughts": effort != "none"}
    return {}


def _contents(conversation: Conversation, traits: Traits, remembered: Remembered, signs: bool) -> list[dict[str, Any]]:
    """Turns of one side in a row are one content."""
    merged: list[tuple[str, list[Part]]] = []
    for turn in conversation.turns:
        if turn.role == "system":
            continue
        first = turn.parts[0] if len(turn.parts) == 1 else None
        if type(first) is Text and first.text:  # nearly all there are
            parts: list[Part] = [first]
        elif not (parts := [part for part in turn.parts if _is_sent(part, signs)]):
            continue
        if merged and merged[-1][0] == turn.role:
            merged[-1][1].extend(parts)
        else:
            merged.append((turn.role, parts))
    writer = _Writer(traits, remembered, signs)
    return [
        {"role": "model" if role == "assistant" else "user", "parts": writer.parts(role, parts)}
        for role, parts in merged
    ]


def _is_sent(part: Part, signs: bool) -> bool:
    """Thoughts are not, and empty texts only for their signatures."""
    if isinstance(part, Text):
        return bool(part.text or part.signature and signs)
    return not isinstance(part, Reasoning)


class _Writer:
    """Parts as Gemini has them."""

    def __init__(self, traits: Traits, remembered: Remembered, signs: bool) -> None:
        self._traits = traits
        self._remembered = remembered
        self._signs = signs
        self._calls: dict[str, tuple[int, str]] = {}  # by their ids: how many came before, and the tool's name

    def parts(self, role: str, parts: list[Part]) -> list[dict[str, Any]]:
        part = parts[0]
        if len(parts) == 1 and isinstance(part, Text) and part.signature is None:  # nearly all there are
            return [{"text": part.text}]
        return self._answered(parts) if role == "assistant" else self._asked(parts)

    def _answered(self, parts: list[Part]) -> list[dict[str, Any]]:
        """What the model said. Of calls that it made together, the first has the signature."""
        found: list[dict[str, Any]] = []
        first: dict[str, Any] | None = None
        for part in parts:
            said = _part(part)
            signature = None
            if isinstance(part, ToolCall):
                self._calls[part.id] = (len(self._calls), part.name)
                signature = part.signature or self._remembered(part.id)
                first = first or said
            elif isinstance(part, Text):
                signature = part.signature
            if signature and self._signs:
                said["thoughtSignature"] = signature
            found.append(said)
        if first is not None and self._traits.wants_signatures:
            first.setdefault("thoughtSignature", UNSIGNED)
        return found

    def _asked(self, parts: list[Part]) -> list[dict[str, Any]]:
        """What the user said: results of tools first, in the order of their calls."""
        results = [part for part in parts if isinstance(part, ToolResult)]
        found = [_part(part) for part in parts if not isinstance(part, ToolResult)]
        if not results:
            return found
        last = (len(self._calls), "")
        results.sort(key=lambda result: self._calls.get(result.id, last)[0])
        media: list[dict[str, Any]] = []
        return [*(self._result(result, media) for result in results), *media, *found]

    def _result(self, result: ToolResult, behind: list[dict[str, Any]]) -> dict[str, Any]:
        """A result. Its media go `behind` all results where the model does not take them within."""
        text = "".join(part.text for part in result.parts if isinstance(part, Text))
        media = [_media(part) for part in result.parts if isinstance(part, Media)]
        _, name = self._calls.get(result.id, (0, result.id))
        written: dict[str, Any] = _named(result.id) | {
            "name": name,
            "response": {"error" if result.is_error else "output": text},
        }
        if not self._traits.hears_media:
            behind += media
        elif media:
            written["parts"] = media
        return {"functionResponse": written}


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"text": part.text}
    if isinstance(part, Media):
        return _media(part)
    assert isinstance(part, ToolCall)
    arguments = read_json(part.arguments.encode())
    args = arguments if isinstance(arguments, dict) else {}
    return {"functionCall": _named(part.id) | {"name": part.name, "args": args}}


def _named(id: str) -> dict[str, str]:
    return {} if not id or id.startswith(UNNAMED) else {"id": id}


def _media(part: Media) -> dict[str, Any]:
    if part.url:
        ending = part.url.partition("?")[0].rpartition(".")[2].lower()
        guessed = part.media_type or _MEDIA_TYPES.get(ending)
        return {"fileData": ({"mimeType": guessed} if guessed else {}) | {"fileUri": part.url}}
    usual = {"image": "image/png", "audio": "audio/wav", "document": "application/pdf"}[part.kind]
    return {"inlineData": {"mimeType": part.media_type or usual, "data": part.data or ""}}


def _tool(tool: Tool) -> dict[str, Any]:
    """A JSON schema goes up as it is: of the older member for it only a subset is taken."""
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "parametersJsonSchema": tool.parameters}


def _choice(choice: str) -> dict[str, Any]:
    mode = {"auto": "AUTO", "none": "NONE", "required": "ANY"}.get(choice)
    return {"mode": mode} if mode else {"mode": "ANY", "allowedFunctionNames": [choice]}
