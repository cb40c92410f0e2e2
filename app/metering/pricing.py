"""What a call may cost and what it did cost, from a model's price and counted tokens.

Reserve rounds up, settle rounds half up; both work in whole nano-units.
"""

from __future__ import annotations

from typing import NamedTuple

from app.directory import Model, Price
from app.metering import money

# What is assumed of an answer when neither request nor model sets a limit.
DEFAULT_OUTPUT_TOKENS = 4096
# What a request that names no limit takes from a minute's tokens for its answer, before the real number is known.
UNNAMED_OUTPUT_TOKENS = 256


class TokenBound(NamedTuple):
    """The most a call may use, in tokens; `output` is the request's own limit for each of `answers`, None for none.

    `priced_apart` names the member of the request that may cost more than these tokens, None for none: what it costs
    can't be held, so that no budget takes it.
    """

    input: int
    output: int | None
    answers: int = 1
    produces_output: bool = True  # embeddings do not
    unseen: int = 0  # part of `input`: what files may hold at the most
    predicted: int = 0  # what each answer may be charged as output besides: a prediction that was wrong
    priced_apart: str | None = None

    @property
    def usual_input(self) -> int:
        """What the input may well be, tokens: one for four bytes of what can be seen of it."""
        return -(-(self.input - self.unseen) // 4)

    @property
    def bucket_tokens(self) -> int:
        """What to take from a minute's tokens: a usual length in, the named or a usual one out."""
        if not self.produces_output:
            return self.usual_input
        named = UNNAMED_OUTPUT_TOKENS if self.output is None else self.output
        return self.usual_input + named * self.answers


def is_priced(price: Price | None) -> bool:
    """Whether `price` says anything about tokens or requests; an explicit 0 does, and means free."""
    return price is not None and any(
        part is not None for part in (price.input_per_mtok, price.output_per_mtok, price.per_request)
    )


def base_nano(price: Price | None, bound: TokenBound) -> int:
    """The most that input, predictions and fixed parts can cost, nano-units."""
    if price is None:
        return 0
    dearest = max(price.input_per_mtok or 0, price.cached_input_per_mtok or 0)
    predicted = money.up(bound.predicted * bound.answers, price.output_per_mtok or 0)
    return money.up(bound.input, dearest) + predicted + (price.per_request or 0)


def assumed_output(model: Model, bound: TokenBound) -> int:
    """The output limit of a request that names none, before the budget has its say, tokens."""
    if not bound.produces_output:
        return 0
    most = model.default_output_tokens or model.max_output_tokens or DEFAULT_OUTPUT_TOKENS
    if model.context_window is not None:
        # Bytes overstate tokens, so that a long prompt may seem to fill the window: something must stay to answer. And
        # a file may fill it, but hardly does.
        most = min(most, max(model.context_window - bound.input + bound.unseen, min(most, 256)))
    return most


def cost_nano(price: Price | None, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> int:
    """What the tokens cost, nano-units, rounded half up once. `cached_tokens` are part of `prompt_tokens`."""
    if price is None:
        return 0
    cached_price = price.cached_input_per_mtok
    if cached_price is None:
        cached_price = price.input_per_mtok or 0
    cached = min(cached_tokens, prompt_tokens)
    tokens = (
        (prompt_tokens - cached) * (price.input_per_mtok or 0)
        + cached * cached_price
        + completion_tokens * (price.output_per_mtok or 0)
    )
    return money.half_up(tokens) + (price.per_request or 0)
