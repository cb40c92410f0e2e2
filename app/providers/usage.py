"""What a call used: what its upstream tells, which is evidence and not truth, and what is counted here.

An upstream's figures are read in whatever shape they come and merged field by field. A figure that the request can't have
used is not believed. What is missing at the end is counted from the text, in the native thread (`app.providers.tokens`).
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec
import structlog
from msgspec import Meta

from app.providers import tokens
from app.providers.base import UpstreamRequest, Usage
from app.providers.lenient_json import members_of, read_json
from app.runtime.jsonbody import object_of

LONGEST_TIER = 64  # characters of a service tier's name
KEPT = 65_536  # bytes of a stream's text that are kept to be counted; of what is longer the rest is taken to be alike
KEPT_WHOLE = 2 << 20  # the same of a whole answer, in characters

PROMPT = ("prompt_tokens", "input_tokens")
COMPLETION = ("completion_tokens", "output_tokens")
PLAIN = (PROMPT[0], COMPLETION[0])
DETAILS = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
OF_COMPLETION = ("completion_tokens_details", "output_tokens_details")
CACHED = ("cached_tokens", "prompt_cache_hit_tokens")
# Members of the details, and the quantities that they tell.
PROMPT_PARTS = {
    "cache_write_tokens": "cache_write_tokens", "audio_tokens": "audio_input_tokens",
    "image_tokens": "image_input_tokens",
}  # fmt: skip
COMPLETION_PARTS = {
    "reasoning_tokens": "reasoning_tokens", "audio_tokens": "audio_output_tokens",
    "image_tokens": "image_output_tokens",
}  # fmt: skip
QUOTE = ord('"')
SAYS_NOTHING = (b'""', b"null", b"[]")


log = structlog.get_logger("providers.usage")


_OF_PROMPT = frozenset((*PROMPT_PARTS.values(), "cache_write_1h_tokens"))
_NOTHING: dict[str, Any] = {}


class Told(NamedTuple):
    """The figures of one usage object, None for those that it lacks. `plain` names those that are in OpenAI's shape."""

    prompt: int | None = None
    cached: int | None = None
    completion: int | None = None
    total: int | None = None
    plain: frozenset[str] = frozenset()
    more: Mapping[str, int] = _NOTHING  # other quantities by name, those that are not 0

    @property
    def says_something(self) -> bool:
        """A frame of zeros is sent by upstreams that do not know yet."""
        return bool(self.prompt or self.completion or self.total)


def _usual_of(name: str, counts: Iterable[str], absent: Iterable[str] = (), **inner: Any) -> type[msgspec.Struct]:
    """An object with these counts and objects, and without a value by the names that are to be absent."""
    of = [(count, Annotated[int, Meta(ge=0)] | None, None) for count in counts]
    of += [(member, type | None, None) for member, type in inner.items()]
    return msgspec.defstruct(name, of + [(member, None, None) for member in absent])


# A usage object as OpenAI tells it, which is nearly always: none of the other spellings has a value in it.
_Usual = _usual_of(
    "_Usual", PLAIN, absent=(PROMPT[1], COMPLETION[1], *DETAILS[1:], OF_COMPLETION[1], CACHED[1]),
    prompt_tokens_details=_usual_of("_PromptDetails", (CACHED[0], *PROMPT_PARTS), absent=CACHED[1:]),
    completion_tokens_details=_usual_of("_CompletionDetails", COMPLETION_PARTS),
)  # fmt: skip
_usual: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_Usual)
_PLAIN = frozenset(PLAIN)


def read(raw: bytes) -> Told:
    """What a usage object tells. Whatever can't be understood is not told; nothing is raised."""
    try:
        usual = _usual.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        usual = None
    if usual is not None and usual.prompt_tokens and usual.completion_tokens is not None:
        details = usual.prompt_tokens_details
        if details is None and usual.completion_tokens_details is None:
            return Told(usual.prompt_tokens, None, usual.completion_tokens, None, _PLAIN)
        more: Mapping[str, int] = _parts_of(details, PROMPT_PARTS) | _parts_of(
            usual.completion_tokens_details, COMPLETION_PARTS
        )
        if "reasoning_tokens" not in more:
            cached = None if details is None else details.cached_tokens
            return Told(usual.prompt_tokens, cached, usual.completion_tokens, None, _PLAIN, more)
    said = read_json(raw)
    if not isinstance(said, dict):
        return Told()
    prompt, completion = _first(said, PROMPT), _first(said, COMPLETION)
    total = count_in(said.get("total_tokens"))
    details, written = _details(said, DETAILS), _details(said, OF_COMPLETION)
    cached = _first(details, CACHED)
    if cached is None:
        cached = _first(said, CACHED)
    more = _more(details, written)
    reasoning = more.get("reasoning_tokens")
    if prompt is not None and completion is not None and total and reasoning:
        if total == prompt + completion + reasoning:  # some count what was thought beside the answer
            completion += reasoning
    elif prompt is None and completion is not None and total is not None and total >= completion:
        prompt = total - completion
    elif completion is None and prompt is not None and total is not None and total >= prompt:
        completion = total - prompt
    plain = frozenset(name for name in PLAIN if type(said.get(name)) is int)
    return Told(prompt, cached, completion, total, plain, more)


def _parts_of(details: Any, parts: Mapping[str, str]) -> dict[str, int]:
    """The other quantities that these details tell, by name, those that are not 0."""
    found = {}
    if details is not None:
        for member, name in parts.items():
            if number := getattr(details, member):
                found[name] = number
    return found


def _more(prompt: dict[str, Any], completion: dict[str, Any]) -> Mapping[str, int]:
    """The other quantities that both details tell, by name, those that are not 0."""
    if not prompt and not completion:
        return _NOTHING
    found = {}
    for details, parts in ((prompt, PROMPT_PARTS), (completion, COMPLETION_PARTS)):
        for member, name in parts.items():
            if number := count_in(details.get(member)):
                found[name] = number
    return found


def _details(said: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The first object by one of these names."""
    return next((said[name] for name in names if isinstance(said.get(name), dict)), {})


def _first(said: dict[str, Any], names: Iterable[str]) -> int | None:
    """The largest of the figures by these names: some fill in both, one of them with 0."""
    largest = None
    for name in names:
        if name in said and (number := count_in(said[name])) is not None and (largest is None or number > largest):
            largest = number
    return largest


def count_in(value: Any) -> int | None:
    """A count in whatever way it was written; None for what is none."""
    if type(value) is int:
        return value if value >= 0 else None
    if isinstance(value, str) and len(value) <= 40:
        try:
            value = float(value) if not value.isdecimal() else int(value)
        except ValueError:
            return None
    if isinstance(value, float):
        value = math.ceil(value) if math.isfinite(value) else None
    return value if type(value) is int and value >= 0 else None


class Tally:
    """The count of one attempt's tokens, as far as is known at every moment.

    `usage` is always what would be charged if the attempt ended now, near enough; `conclude` says it for good.
    """

    def __init__(self, request: UpstreamRequest) -> None:
        self._usage = Usage()
        self._request = request
        self._produces_output = request.capability not in ("embeddings", "rerank")
        self._prompt: int | None = None
        self._completion: int | None = None  # as told, up to the moment at which it was told
        self._total: int | None = None  # told alone
        self._zero = False  # the upstream told that nothing came out
        self._seen = 0  # bytes of text that came
        self._since = 0  # ... since the upstream told how many tokens it had been
        self._pieces = 0  # pieces of text since then
        self._kept: defaultdict[str, list[bytes]] = defaultdict(list)  # text since then, strings of JSON, by member
        self._whole: bytes | None = None
        self._concluded = False

    @property
    def usage(self) -> Usage:
        usage = self._usage
        if not self._concluded:
            if self._prompt is None:
                usage.prompt_tokens = self._request.prompt_estimate
            if self._since:
                guessed = (self._completion or 0) + max(self._pieces, self._since >> 2)
                usage.completion_tokens = min(guessed, self._most_output)
                usage.estimated = True
        return usage

    def hear(self, delta: dict[str, msgspec.Raw]) -> bool:
        """A piece of the answer came; whether there is text in it."""
        if "content" in delta and (len(delta) == 1 or len(delta) == 2 and "role" in delta):  # nearly all there are
            piece = bytes(delta["content"])
            if piece[0] == QUOTE and len(piece) <= KEPT:
                size = len(piece) - 2
                if size and self._since < KEPT:
                    self._kept["content"].append(piece)
                return self._grow(size)
        size = 0
        for name, value in delta.items():
            piece = bytes(value)
            if name == "role" or piece in SAYS_NOTHING or name == "reasoning_content" and "reasoning" in delta:
                continue
            if piece[0] != QUOTE:
                piece = _text_within(piece)
            if len(piece) <= 2:  # a number, or what has no text within it
                continue
            size += len(piece) - 2
            if self._since < KEPT:
                self._kept[name].append(b'"%b"' % piece[1:-1][:KEPT])
        return self._grow(size)

    def _grow(self, size: int) -> bool:
        if not size:
            return False
        self._seen += size
        self._since += size
        self._pieces += 1
        return True

    def hear_whole(self, body: bytes) -> None:
        """The whole answer came."""
        self._whole = body
        self._seen = len(body)

    def tell(self, raw: bytes) -> Told:
        """The upstream tells its usage, once or again and again; what this time is not told stays as it was."""
        return self.take(read(raw))

    def take(self, told: Told) -> Told:
        """The same of figures that were read."""
        if not told.says_something:
            self._zero = self._zero or told.completion == 0
            return told
        possible, usage = self._request.possible, self._usage
        most_output = self._most_output
        prompt = self._believe("prompt_tokens", told.prompt, possible.told_prompt)
        completion = self._believe("completion_tokens", told.completion, most_output)
        if told.prompt is None and told.completion is None:
            self._total = self._believe("total_tokens", told.total, possible.told_prompt + most_output)
        if prompt is not None:
            self._prompt = usage.prompt_tokens = prompt
            usage.cached_tokens = min(usage.cached_tokens, prompt)
        if told.cached is not None and self._prompt is not None:
            usage.cached_tokens = min(told.cached, self._prompt)
        for name, count in told.more.items():
            whole = possible.told_prompt if name in _OF_PROMPT else most_output
            if self._believe(name, count, whole) is not None:
                usage.more[name] = count
        # A count that does not grow while text comes is none.
        if completion and (completion > (self._completion or 0) or not self._since):
            self._completion = usage.completion_tokens = completion
            self._since = self._pieces = 0
            self._kept.clear()
        self._zero = self._zero or completion == 0
        usage.estimated = self._prompt is None or self._completion is None or bool(self._since)
        return told

    @property
    def _most_output(self) -> int:
        """The most tokens that the answers can be."""
        possible = self._request.possible
        return max(possible.answer * possible.answers, self._seen) if self._produces_output else 0

    def tell_tier(self, raw: bytes) -> None:
        """The service tier in which the upstream says that it served, JSON."""
        if raw and raw != b"null":
            tier = read_json(raw)
            if isinstance(tier, str) and len(tier) <= LONGEST_TIER:
                self._usage.service_tier = tier

    def note_unpriced(self, used: dict[str, int]) -> None:
        """The upstream tells what it did besides, for which no price has a member."""
        self._usage.unpriced = used

    def _believe(self, name: str, figure: int | None, most: int) -> int | None:
        """The figure, if the request can have used so much."""
        if figure is not None and figure > most:
            self._usage.unreadable = f"{name} {figure:.6g}" if figure >= 10**15 else f"{name} {figure}"
            return None
        return figure

    def conclude(self) -> Usage:
        """What the attempt used, for good: told, or else counted. It may wait for the native thread."""
        if self._concluded:
            return self.usage
        request = self._request
        if not self._produces_output:
            self._completion = 0
            if self._prompt is None:
                self._prompt = self._total
        asked = request.question() if self._prompt is None else None
        if asked is None and not self._is_behind and (self._zero or self._completion is not None):
            return self._finish(self._prompt or 0, self._completion or 0, estimated=False)
        try:
            prompt, counted = tokens.apart(
                lambda: (asked.tokens_counted() if asked else 0, self._text().tokens_counted())
            )
        except Exception as error:  # whatever it is, the call is charged
            log.error("tokens could not be counted", reason=str(error))
            prompt, counted = asked.tokens_guessed() if asked else 0, self._text().tokens_guessed()
        possible, told = request.possible, self._completion or 0
        limit = possible.answer if request.max_output is None else min(request.max_output, possible.answer)
        completion = max(told, min(told + counted, limit * possible.answers))
        if self._prompt is not None:
            prompt = self._prompt
        elif self._total is not None:
            completion = min(completion, self._total)
            prompt = min(self._total - completion, possible.told_prompt)
        else:
            prompt = min(prompt, possible.prompt)
        exact = asked is None and not counted and (self._zero or self._completion is not None)
        return self._finish(prompt, completion, estimated=not exact)

    def confirms(self, told: Told) -> bool:
        """Whether these figures, in the shape in which they were told, are what is charged."""
        usage = self.usage
        return (
            not usage.estimated
            and told.plain.issuperset(PLAIN if self._produces_output else PLAIN[:1])
            and (told.prompt, told.completion or 0) == (usage.prompt_tokens, usage.completion_tokens)
        )  # fmt: skip

    def as_json(self) -> bytes:
        """What is charged, as a usage object in OpenAI's shape."""
        usage = self.usage
        told: dict[str, Any] = {"prompt_tokens": usage.prompt_tokens}
        if self._produces_output:
            told["completion_tokens"] = usage.completion_tokens
        told["total_tokens"] = usage.prompt_tokens + usage.completion_tokens
        if usage.cached_tokens:
            told["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
        return msgspec.json.encode(told)

    @property
    def _is_behind(self) -> bool:
        """Whether there is text, or may be, of which the upstream has not told the tokens."""
        return self._completion is None if self._whole is not None else self._since > 0

    def _finish(self, prompt: int, completion: int, *, estimated: bool) -> Usage:
        usage = self._usage
        usage.prompt_tokens, usage.completion_tokens, usage.estimated = prompt, completion, estimated
        usage.cached_tokens = min(usage.cached_tokens, prompt)
        for name, count in usage.more.items():
            usage.more[name] = min(count, prompt if name in _OF_PROMPT else completion)
        self._concluded = True
        return usage

    def _text(self) -> tokens.Sample:
        """The answer's text of which the upstream has not told the tokens."""
        if not self._is_behind:
            return tokens.NOTHING
        if self._whole is not None:
            return tokens.sample(_answered(read_json(self._whole)), KEPT_WHOLE)
        texts, size = [], 0
        for pieces in self._kept.values():
            joined = b"".join(
                [piece[1:-1] for piece in pieces]
            )  # before it is read: a character may come in two halves
            size += len(joined)
            text = read_json(b'"%b"' % joined)
            texts.append(text if isinstance(text, str) else joined.decode("utf-8", "replace"))
        text = "".join(texts)
        text = text.removesuffix(" ") or text  # where a stream is cut, a blank begins a token that did not come
        return tokens.Sample((text,), len(text) * self._since // max(size, 1))


def _text_within(piece: bytes) -> bytes:
    """The texts within a list or an object, such as a tool call's name and arguments, as one text of JSON."""
    text = "".join(tokens.texts_of(read_json(piece)))
    try:
        return msgspec.json.encode(text)
    except UnicodeEncodeError:  # half a character
        return json.dumps(text).encode()


def _answered(body: Any) -> Iterator[str]:
    """The texts of a whole answer's choices."""
    choices = body.get("choices") if isinstance(body, dict) else None
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            message = choice.get("message") or choice.get("text")
            if isinstance(message, dict) and message.get("reasoning") and "reasoning_content" in message:
                message = {name: value for name, value in message.items() if name != "reasoning_content"}
            yield from tokens.texts_of(message)


def chunk_of(like: bytes, usage: bytes) -> bytes:
    """A chunk that tells nothing but the usage, of the same stream as the chunk `like`."""
    members = members_of(like)
    kept = ("id", "object", "created", "model", "system_fingerprint")
    told = {name: members[name] for name in kept if name in members} | {"choices": b"[]", "usage": usage}
    return b"".join(object_of(told))


def with_member(data: bytes, name: str, value: bytes | None) -> bytes:
    """A JSON object with a member at its top level replaced, added, or (None) taken out; the others as they are."""
    try:
        members = members_of(data)
    except ValueError:
        return data
    members.pop(name, None)
    return b"".join(object_of(members if value is None else members | {name: value}))
