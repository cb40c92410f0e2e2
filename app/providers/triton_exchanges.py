"""Answers of Triton's models: texts in the neutral language, vectors and transcripts as OpenAI's clients read them."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from app import clock
from app.providers import usage
from app.providers.base import PROMPT_KEPT, Exchange, Pieces, UpstreamError, UpstreamRequest, Usage
from app.providers.conversation import Event, Finish, FinishReason, Reply, Silence, Text
from app.providers.openai_audio import HEARD_PER_S, IN_JSON, with_length
from app.providers.openai_embeddings import VectorsExchange
from app.providers.tokens import sample
from app.providers.triton_speech import transcript
from app.providers.triton_tensors import Tensor, TensorMap
from app.providers.triton_transport import Answers, Outputs
from app.runtime.ids import new_id

EMPTY = "The model answered nothing."
UNREADABLE = "The provider's answer can't be read."
_GOES_ON = ("", "none", "null")  # said of a finish before it comes
_REASONS: dict[str, FinishReason] = {
    "stop": "stop", "end": "stop", "eos": "stop", "end_id": "stop", "stop_words": "stop", "length": "length",
    "max_tokens": "length", "content_filter": "content_filter",
}  # fmt: skip


class _Written:
    """Text that comes in answers, with the tokens that they tell."""

    def __init__(self, tally: usage.Tally, tensors: TensorMap, *, repeats_text: bool = False) -> None:
        self._outputs = tensors.outputs
        self._counts_each = tensors.counts_each
        self._repeats = repeats_text
        self._before = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._counts: list[tuple[int, int]] = []  # tokens told, and texts that had come by then
        self._texts = 0
        self._prompt: int | None = None
        self.finish: str | None = None  # as told
        self.tells_finish = False
        self.has_come = False
        self.tally = tally

    def read(self, answer: Outputs) -> str:
        """The text that an answer adds. Raises `UpstreamError` for one that has none."""
        pieces = answer.get(self._outputs["text"])
        if pieces is None:
            if self.has_come:  # the last answer may only end it
                pieces = []
            else:
                raise UpstreamError(f"The model's answer has no output '{self._outputs['text']}'.")
        self.has_come = True
        said = b"".join(piece if isinstance(piece, bytes) else str(piece).encode() for piece in pieces[:1])
        if self._repeats:
            said, self._before = said[len(self._before) :], said
        self._tell(answer, bool(said))
        return self._hear(self._decoder.decode(said))

    def end(self) -> str:
        """What is left of a text that ended within a character."""
        return self._hear(self._decoder.decode(b"", True))

    def _hear(self, text: str) -> str:
        if text:
            self.tally.hear({"text": msgspec.Raw(msgspec.json.encode(text))})
        return text

    def _tell(self, answer: Outputs, has_text: bool) -> None:
        self._texts += has_text
        finish = _first(answer, self._outputs.get("finish_reason"))
        if finish is not None:
            self.tells_finish = True
            told = (finish.decode("utf-8", "replace") if isinstance(finish, bytes) else str(finish)).strip().lower()
            if told not in _GOES_ON:
                self.finish = told
        prompt = _first(answer, self._outputs.get("prompt_tokens"))
        if type(prompt) is int and prompt > 0:
            self._prompt = prompt
        count = _first(answer, self._outputs.get("completion_tokens"))
        if type(count) is int:
            self._counts.append((count, self._texts))

    def told(self) -> dict[str, int]:
        """What the model told of tokens, by the names of OpenAI's usage."""
        told = {"prompt_tokens": self._prompt, "completion_tokens": self._counted()}
        return {name: count for name, count in told.items() if count is not None}

    def check_end(self) -> None:
        """Raises `UpstreamError` for a text that is not whole."""
        if not self.has_come:
            raise UpstreamError(EMPTY)
        if self.tells_finish and self.finish is None:
            raise UpstreamError("The provider's stream ended before it was complete.")

    def reason(self, limit: int | None) -> FinishReason:
        """How the text ended, once it has; `limit` in tokens is what was asked for."""
        if self.finish is not None:
            return _REASONS.get(self.finish, "stop")
        count = self._counted()
        return "length" if limit is not None and count is not None and count >= limit else "stop"

    def _counted(self) -> int | None:
        """The tokens of the answer. Some models tell those of each answer, some those of all so far: the latter never
        become fewer, and are at least as many as the texts."""
        if not self._counts or self._counts[-1][1] < self._texts:
            return None
        numbers = [number for number, _ in self._counts]
        growing = all(
            later > number if texts_later > texts else later >= number
            for (number, texts), (later, texts_later) in zip(self._counts, self._counts[1:], strict=False)
        )
        if (
            not self._counts_each
            and len(numbers) > 1
            and growing
            and all(number >= texts for number, texts in self._counts)
        ):
            return numbers[-1]
        return sum(numbers)


def _first(answer: Outputs, name: str | None) -> Any:
    values = answer.get(name) if name is not None else None
    return values[0] if values else None


class TritonText(Exchange):
    """A text that a model writes."""

    speaks = "triton"

    def __init__(self, answers: Answers, request: UpstreamRequest, tensors: TensorMap, *, repeats_text: bool) -> None:
        self._answers = answers
        self._request = request
        self._tally = usage.Tally(request)
        self._written = _Written(self._tally, tensors, repeats_text=repeats_text)
        self._came: list[Outputs] = []
        self.finish_reason = None

    @property
    def usage(self) -> Usage:
        return self._tally.usage

    def conclude(self) -> Usage:
        return self._tally.conclude()

    def receive(self) -> None:
        self._came = list(self._answers)

    def body(self) -> bytes:
        raise NotImplementedError("no client speaks of tensors")

    def events(self) -> Pieces:
        raise NotImplementedError("no client speaks of tensors")

    def reply(self) -> Reply:
        events = list(self._events(self._came))
        text = "".join(event.text for event in events if isinstance(event, Text))
        (finish,) = (event.reason for event in events if isinstance(event, Finish))
        return Reply(parts=(Text(text),) if text else (), finish=finish)

    def neutral_events(self) -> Iterator[Event]:
        return self._events(self._answers.come(self._request.keep_alive_s))

    def _events(self, answers: Iterable[Outputs | None]) -> Iterator[Event]:
        written = self._written
        is_first = True
        for answer in answers:
            if answer is None:
                if not is_first:
                    yield Silence()
                continue
            if text := written.read(answer):
                yield Text(text)
                if is_first and self._request.stream:
                    self._request.forget_question()
                is_first = False
        written.check_end()
        if text := written.end():
            yield Text(text)
        _tell(self._tally, [written])
        reason = written.reason(self._request.max_output)
        self.finish_reason = reason
        yield Finish(reason)

    def close(self) -> None:
        self._answers.close()


class TritonCompletions(Exchange):
    """Texts that a model goes on with, one for each prompt, for clients of OpenAI's completions."""

    speaks = "openai_completions"

    def __init__(
        self, answers: list[Answers], request: UpstreamRequest, tensors: TensorMap, *, repeats_text: bool
    ) -> None:
        self._answers = answers
        self._request = request
        self._tally = usage.Tally(request)
        self._written = [_Written(self._tally, tensors, repeats_text=repeats_text) for _ in answers]
        self._came: list[list[Outputs]] = []
        self._head = {
            "id": f"cmpl-{new_id()}", "object": "text_completion", "created": clock.now_s(), "model": request.model,
        }  # fmt: skip
        self.finish_reason = None

    @property
    def usage(self) -> Usage:
        return self._tally.usage

    def conclude(self) -> Usage:
        return self._tally.conclude()

    def receive(self) -> None:
        self._came = [list(answers) for answers in self._answers]

    def body(self) -> bytes:
        choices = []
        for index, came in enumerate(self._came):
            text = "".join(self._texts(index, came))
            choices.append(_choice(index, text, self._written[index].reason(self._request.max_output)))
        self._end()
        return msgspec.json.encode(self._head | {"choices": choices, "usage": self._usage()})

    def events(self) -> Pieces:
        is_first = True
        for index, answers in enumerate(self._answers):
            for text in self._texts(index, answers):
                yield _event(self._head | {"choices": [_choice(index, text, None)]})
                if is_first:
                    self._request.forget_question()
                is_first = False
            reason = self._written[index].reason(self._request.max_output)
            yield _event(self._head | {"choices": [_choice(index, "", reason)]})
        self._end()
        if self._request.include_usage:
            yield _event(self._head | {"choices": [], "usage": self._usage()})
        return None

    def _texts(self, index: int, answers: Iterable[Outputs]) -> Iterator[str]:
        written = self._written[index]
        for answer in answers:
            if text := written.read(answer):
                yield text
        written.check_end()
        if text := written.end():
            yield text

    def _end(self) -> None:
        _tell(self._tally, self._written)
        self.finish_reason = self._written[0].reason(self._request.max_output)

    def _usage(self) -> dict[str, int]:
        used = self.conclude()
        read, wrote = used.prompt_tokens, used.completion_tokens
        return {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}

    def close(self) -> None:
        for answers in self._answers:
            answers.close()


def _choice(index: int, text: str, reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


def _tell(tally: usage.Tally, written: list[_Written]) -> None:
    """Tell the tally what the model told of the tokens of all texts."""
    told = [one.told() for one in written]
    sums = {name: sum(one[name] for one in told) for name in told[0] if all(name in one for one in told)}
    if sums:
        tally.tell(msgspec.json.encode(sums))


class TritonEmbeddings(VectorsExchange):
    """Vectors, for clients of OpenAI's embeddings."""

    def __init__(
        self, answers: list[tuple[int, dict[str, Tensor]]], request: UpstreamRequest, outputs: dict[str, str]
    ) -> None:
        super().__init__(request)
        told = 0
        vectors: list[list[float]] = []
        for count, answer in answers:
            vectors += _vectors(answer, outputs["embedding"], count)
            if (name := outputs.get("prompt_tokens")) in answer:
                told += sum(answer[name].values)
        self.take(vectors)
        self.told(told)


def _vectors(answer: dict[str, Tensor], name: str, count: int) -> list[list[float]]:
    """The vectors of so many texts. Raises `UpstreamError`."""
    tensor = answer.get(name)
    if tensor is None:
        raise UpstreamError(f"The model's answer has no output '{name}'.")
    numbers = list(tensor.values)
    size, left = divmod(len(numbers), count)
    if left or not size or count > 1 and tensor.shape[0] != count:
        raise UpstreamError(f"The model's output '{name}' has not one vector for each text.")
    return [numbers[place : place + size] for place in range(0, len(numbers), size)]


class TritonSpeech(Exchange):
    """The text of a sound, for clients of OpenAI's transcriptions."""

    speaks = "openai_transcriptions"

    def __init__(self, answers: Answers | list[Outputs], request: UpstreamRequest, tensors: TensorMap) -> None:
        self._answers = answers
        self._parsed = request.parsed
        self._sound = sound = request.parsed.sound
        heard = HEARD_PER_S * -(-sound.usual_ms // 1000)
        request.remembered = sample([request.parsed.prompt or ""], PROMPT_KEPT, heard)
        self._tally = usage.Tally(request)
        self._written = _Written(self._tally, tensors)
        self._came: list[Outputs] = []
        self.finish_reason = None
        if not request.stream:
            in_json = request.parsed.response_format in IN_JSON
            self.media_type = "application/json" if in_json else "text/plain; charset=utf-8"

    @property
    def usage(self) -> Usage:
        return self._charged(self._tally.usage)

    def conclude(self) -> Usage:
        return self._charged(self._tally.conclude())

    def _charged(self, used: Usage) -> Usage:
        return with_length(used, self._sound)

    def receive(self) -> None:
        self._came = list(self._answers)

    def body(self) -> bytes:
        text = "".join(self._texts(self._came))
        return transcript(text, self._seconds, self._parsed, self._used())

    def events(self) -> Pieces:
        text = ""
        for piece in self._texts(self._answers):
            text += piece
            yield _event({"type": "transcript.text.delta", "delta": piece})
        return _event({"type": "transcript.text.done", "text": text, "usage": self._used()})

    def _texts(self, answers: Iterable[Outputs]) -> Iterator[str]:
        for answer in answers:
            if text := self._written.read(answer):
                yield text
        self._written.check_end()
        if text := self._written.end():
            yield text
        _tell(self._tally, [self._written])
        self.conclude()

    @property
    def _seconds(self) -> float:
        return float(self._sound.usual_ms) / 1000

    def _used(self) -> dict[str, Any]:
        return {"type": "duration", "seconds": -(-self._sound.usual_ms // 1000)}

    def close(self) -> None:
        if isinstance(self._answers, Answers):
            self._answers.close()


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
