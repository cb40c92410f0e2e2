"""Tokens of a text, counted here where an upstream does not tell them.

The vocabulary is OpenAI's o200k; it stands in the repository, so that nothing is ever fetched. It takes about 80 MB, and
half a second to load in which no greenlet runs, so a web worker loads it before it serves. Counting is done in one native
thread of the process, never in the event loop's; a long text is counted in pieces, so that the time is proportional to its
length whatever it says.
"""

from __future__ import annotations

import hashlib
import lzma
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec
from gevent.threadpool import ThreadPool

if TYPE_CHECKING:
    from tiktoken import Encoding

VOCABULARY = Path(__file__).parent / "vocabulary" / "o200k_base.tiktoken.xz"
VOCABULARY_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"  # as tiktoken pins it
# How o200k splits a text before it looks for tokens, as tiktoken has it.
_SPLIT = "|".join((
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
))  # fmt: skip

PIECE = 4096  # characters that are counted in one go: the tokenizer's time may grow with the square of a word's length
BLANK = 256  # a piece ends before a blank, if there is one among its last characters: few words are cut in two
MANY = 256  # texts that are kept one by one
# Members whose text no model reads or writes: names of things, addresses, encoded data.
SILENT = frozenset((
    "role", "id", "type", "index", "tool_call_id", "call_id", "url", "data", "b64_json", "file_data", "file_id", "format",
    "detail", "signature", "encrypted_content", "logprobs", "finish_reason", "cache_control", "annotations",
))  # fmt: skip

Result = TypeVar("Result")


class VocabularyError(Exception):
    """The vocabulary in the repository is not the one that this program was written for, or a text can't be counted."""


class Sample(NamedTuple):
    """Text to be counted later: `texts` stand for `size` characters, and `known` tokens come to it."""

    texts: tuple[str, ...]
    size: int
    known: int = 0

    def tokens_counted(self) -> int:
        """The tokens of all the text, by those of the part that was kept. Only in the native thread, see `apart`."""
        return self._of_all(sum(map(count, self.texts)))

    def tokens_guessed(self) -> int:
        """The same at no cost, and not as near: four characters a token, and a word has at least one."""
        return self._of_all(sum(max(text.count(" ") + 1, -(-len(text) // 4)) for text in self.texts))

    def _of_all(self, counted: int) -> int:
        kept = sum(map(len, self.texts))
        return self.known + (-(-counted * self.size // kept) if kept else 0)


NOTHING = Sample((), 0)


def sample(texts: Iterable[str], most: int, known: int = 0) -> Sample:
    """All the texts if they have no more than `most` characters, or else the same share of each of them."""
    texts = [text for text in texts if text]
    size = sum(map(len, texts))
    if size > most:
        share = most / size
        texts = [text[: int(len(text) * share)] for text in texts if len(text) * share >= 1] or [texts[0][:1]]
    if len(texts) > MANY:  # a short text takes many times its length in memory
        texts = ["\n".join(texts)]
    return Sample(tuple(texts), size, known)


def texts_of(value: Any) -> Iterator[str]:
    """Every text within a decoded value that a model may read or write, in order; no depth is too deep."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        kind = type(value)
        if kind is str:
            yield value
        elif kind is list or kind is tuple:
            waiting += reversed(value)
        elif kind is dict:
            waiting += [inner for name, inner in reversed(value.items()) if inner and name not in SILENT]
        elif isinstance(value, msgspec.Struct):
            for name in reversed(_fields(type(value))):
                if inner := getattr(value, name):
                    waiting.append(inner)


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(name for name in kind.__struct_fields__ if name not in SILENT)


def apart(work: Callable[[], Result]) -> Result:
    """What `work` gives, done in the native thread while other greenlets go on. Raises what it raises."""
    return _thread().apply(work)  # type: ignore[no-any-return]


def load() -> None:
    """Load the vocabulary, unless that was done. Raises `VocabularyError`."""
    _encoding()


def count(text: str) -> int:
    """The tokens of a text. It may take long: only in the native thread, see `apart`. Raises `VocabularyError`."""
    encoding = _encoding()
    try:
        return sum(len(encoding.encode_ordinary(piece)) for piece in _pieces(text))
    except BaseException as error:  # a panic of the tokenizer is no `Exception`, and must not end a greenlet
        raise VocabularyError(f"a text of {len(text)} characters can't be counted: {error}") from None


def _pieces(text: str) -> Iterator[str]:
    start, size = 0, len(text)
    while start < size:
        end = start + PIECE
        if end < size:
            blank = text.rfind(" ", end - BLANK, end)
            end = blank if blank > start else end
        yield text[start:end]
        start = end


@cache
def _thread() -> ThreadPool:
    """One thread, made after the fork: the vocabulary is loaded once, and counting never takes more than one core."""
    return ThreadPool(1)


@cache
def _encoding() -> Encoding:
    from tiktoken import Encoding

    content = lzma.decompress(VOCABULARY.read_bytes())
    if hashlib.sha256(content).hexdigest() != VOCABULARY_SHA256:
        raise VocabularyError(f"{VOCABULARY.name} is not the vocabulary that it should be")
    ranks = {}
    for line in content.splitlines():
        token, _, rank = line.partition(b" ")
        ranks[a2b_base64(token)] = int(rank)
    return Encoding(name="o200k_base", pat_str=_SPLIT, mergeable_ranks=ranks, special_tokens={})
