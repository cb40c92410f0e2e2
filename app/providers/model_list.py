"""What an upstream lists as its models, in whatever shape it writes that down.

It comes from outside: a list that is no list, or more than one can look through, is a failure with a sentence.
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.directory import Capability
from app.providers.errors import UpstreamError
from app.providers.lenient_json import read_json

MAX_BYTES = 8 << 20
MOST = 5_000
LONGEST_ID = 200
LARGEST_TOKENS = 1_000_000_000

UNREADABLE = "The provider's list of models can't be read; is the base URL right?"

_LISTS = ("data", "models")
_IDS = ("id", "model", "name")
_CONTEXT = (
    "context_window",
    "context_length",
    "max_model_len",
    "max_context_length",
    "max_input_tokens",
    "inputTokenLimit",
)
_OUTPUT = ("max_completion_tokens", "max_output_tokens", "max_tokens", "outputTokenLimit")
_WITHIN = ("top_provider", "limits")  # members that tell more of the same


class ListedModel(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model by its name at the provider; limits in tokens, and None or nothing for what is not told."""

    id: str
    context_window: int | None = None
    max_output_tokens: int | None = None
    capability: Capability | None = None
    features: tuple[str, ...] = ()


def read(body: bytes) -> tuple[ListedModel, ...]:
    """The models in an answer, by name, each once. Raises `UpstreamError`."""
    said = read_json(body)
    if isinstance(said, dict):
        said = next((said[name] for name in _LISTS if isinstance(said.get(name), list)), None)
    return of(said)


def of(said: Any) -> tuple[ListedModel, ...]:
    """The models of a list that was read. Raises `UpstreamError`."""
    if not isinstance(said, list):
        raise UpstreamError(UNREADABLE)
    if len(said) > MOST:
        raise UpstreamError(f"The provider lists more than {MOST} models.")
    found = {model.id: model for model in map(_model, said) if model is not None}
    if said and not found:
        raise UpstreamError(UNREADABLE)
    return tuple(found[id] for id in sorted(found))


def _model(said: Any) -> ListedModel | None:
    """One entry; None for one without a name that can be asked for."""
    if isinstance(said, str):
        said = {"id": said}
    if not isinstance(said, dict):
        return None
    id = next((said[name] for name in _IDS if isinstance(said.get(name), str)), "").strip()
    if not 1 <= len(id) <= LONGEST_ID or not id.isprintable():
        return None
    return ListedModel(id, _tokens(said, _CONTEXT), _tokens(said, _OUTPUT))


def _tokens(said: dict[str, Any], names: tuple[str, ...]) -> int | None:
    for place in (said, *(said.get(name) for name in _WITHIN)):
        if isinstance(place, dict):
            for name in names:
                number = place.get(name)
                if type(number) is int and 1 <= number <= LARGEST_TOKENS:
                    return number
    return None
