"""What a call may cost and what it did cost, from a model's price and what was used.

Reserve rounds up, settle rounds half up; both work in whole nano-units. A price has members for quantities
(`app.metering.quantities`), and may have others for service tiers and for long prompts. A member that is not given falls
back to the nearest more general one: in its own band first, then in the price itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import lcm
from typing import NamedTuple

from app.directory import Model, Price
from app.metering import money
from app.metering.quantities import PARTS, PRICE_MEMBERS, QUANTITIES, Quantity

# What is assumed of an answer when neither request nor model sets a limit, and near the end of a budget when no answers
# are known yet.
DEFAULT_OUTPUT_TOKENS = 4096
# What a request that names no limit takes from a minute's tokens for its answer, before the real number is known.
UNNAMED_OUTPUT_TOKENS = 256
# What an upstream may add to a prompt by itself: its template, a hidden system prompt, descriptions of tools.
ADDED_TOKENS = 4096

Rates = Mapping[str, int]  # nano-units by the name of a price's member

_PLAIN = frozenset(("input_per_mtok", "cached_input_per_mtok", "output_per_mtok", "per_request"))
_MEMBERS = {member.name: member for member in PRICE_MEMBERS}
_SCALE = lcm(*(one.per for one in QUANTITIES))
_INPUT = ("input_per_mtok", *(one.price for one in PARTS["prompt_tokens"] if one.price is not None))
_REQUEST = ("per_request",)
_OUTPUT = ("output_per_mtok", *(one.price for one in PARTS["completion_tokens"] if one.price is not None))
_BY_NAME = {one.name: one for one in QUANTITIES}
_WHOLES = tuple(PARTS)
_PAY_FOR_TOKENS = frozenset(("images", "audio_ms", "characters"))
_OF_TOKENS = frozenset((*_INPUT, *_OUTPUT, "per_request"))


class TokenBound(NamedTuple):
    """The most a call may use, in tokens; `output` is the request's own limit for each of `answers`, None for none.

    `priced_apart` names the member of the request that may cost more than a price can tell, None for none: what it costs
    can't be held, so that no budget takes it. `tier` is the service tier that the request asks for, None for the usual one.
    `more` has the bounds of other quantities by name; `prompts` says how many texts there are, each of which may fill the
    model's context window.
    """

    input: int
    output: int | None
    answers: int = 1
    produces_output: bool = True  # embeddings do not
    unseen: int = 0  # part of `input`: what files may hold at the most
    predicted: int = 0  # what each answer may be charged as output besides: a wrong prediction, a prompt that is echoed
    priced_apart: str | None = None
    reads_more: bool = False  # the upstream may read more than was sent: what tools of its own find
    tier: str | None = None
    more: Mapping[str, int] = {}
    prompts: int = 1

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


class Part(NamedTuple):
    """A line of what a call cost: so many of a quantity at `rate` nano-units for its `per`."""

    quantity: Quantity
    number: int
    rate: int


def is_priced(price: Price | None, bound: TokenBound) -> bool:
    """Whether `price` says anything about what the call uses; an explicit 0 does, and means free."""
    return price is not None and not (
        _OF_TOKENS.isdisjoint(price.rates)
        and price.rates.keys().isdisjoint(str(_BY_NAME[name].price) for name in bound.more)
    )


def is_priced_by(price: Price | None, names: Collection[str]) -> bool:
    """Whether what a call costs depends on these quantities alone."""
    if price is None or price.tiers or price.long_context is not None:
        return False
    members = {_BY_NAME[name].price for name in names} | {"per_request"}
    return members.issuperset(name for name, rate in price.rates.items() if rate)


def unpriced_member(price: Price | None, bound: TokenBound) -> str | None:
    """The member of the request whose cost the price does not tell; None if it tells all."""
    if bound.tier is not None and (price is None or bound.tier not in price.tiers):
        return bound.priced_apart or "service_tier"
    return bound.priced_apart


def base_nano(price: Price | None, bound: TokenBound) -> int:
    """The most that input, predictions and fixed parts can cost, nano-units."""
    if price is None:
        return 0
    predicted = money.up(bound.predicted * bound.answers, output_price(price, bound)) if bound.predicted else 0
    cost = money.up(bound.input, _dearest(price, bound, _INPUT)) + predicted + _dearest(price, bound, _REQUEST)
    for name, count in bound.more.items():
        quantity = _BY_NAME[name]
        if quantity.price is not None:
            cost += -(-count * _dearest(price, bound, (quantity.price,)) // quantity.per)
    return cost


def output_price(price: Price | None, bound: TokenBound) -> int:
    """The most that a million tokens of the answer can cost, nano-units."""
    return 0 if price is None or not bound.produces_output else _dearest(price, bound, _OUTPUT)


def _dearest(price: Price, bound: TokenBound, names: tuple[str, ...]) -> int:
    """The highest of these members over all bands that may apply: where no tier is asked for, the upstream chooses."""
    most = _highest(price.rates, names)
    for tier, rates in price.tiers.items():
        if bound.tier is None or bound.tier == tier:
            most = max(most, _highest(rates, names))
    long = price.long_context
    if long is not None and bound.input + ADDED_TOKENS > long.above_prompt_tokens:
        most = max(most, _highest(long.rates, names))
    return most


def _highest(rates: Rates, names: tuple[str, ...]) -> int:
    most = 0
    for name in names:
        if name in rates and rates[name] > most:
            most = rates[name]
    return most


def tier_of(price: Price | None, bound: TokenBound, told: str | None) -> str | None:
    """The tier whose prices hold, None for the usual ones: what the upstream told, if it may have served so, or else the
    tier that was asked for. A dearer tier than was held for is not believed."""
    if price is None or not price.tiers:
        return None
    if told is None or bound.tier is not None and told in price.tiers:
        told = bound.tier
    return told if told in price.tiers else None


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


def cost_nano(price: Price | None, used: Mapping[str, int], tier: str | None = None) -> int:
    """What was used costs, nano-units, rounded half up once. `used` has counts by the names of quantities."""
    if price is None:
        return 0
    if price.rates.keys() <= _PLAIN and not price.tiers and price.long_context is None:
        return _plain_cost(price.rates, used)
    cost = sum(part.number * part.rate * (_SCALE // part.quantity.per) for part in parts_of(price, used, tier))
    return money.half_up(cost, _SCALE) + request_rate(price, used, tier)


def _plain_cost(rates: Rates, used: Mapping[str, int]) -> int:
    """The same for a price of the usual members, which nearly all are."""
    prompt, input_rate = used.get("prompt_tokens", 0), rates.get("input_per_mtok", 0)
    cost = prompt * input_rate + used.get("completion_tokens", 0) * rates.get("output_per_mtok", 0)
    if "cached_tokens" in used and "cached_input_per_mtok" in rates:
        cost += min(used["cached_tokens"], prompt) * (rates["cached_input_per_mtok"] - input_rate)
    return money.half_up(cost, money.MTOK) + rates.get("per_request", 0)


def parts_of(price: Price, used: Mapping[str, int], tier: str | None = None) -> list[Part]:
    """What was used, taken apart into what has a price of its own. Nothing is counted twice: what is within a quantity
    takes from it, in the order of the list, and never more than is left."""
    bands = _bands_of(price, used, tier)
    found = []
    for name, inner in PARTS.items():
        left = used.get(name, 0)
        whole = _BY_NAME[name]
        rate = _rate(bands, whole.price)
        lines = []
        for quantity in inner:
            count = min(used.get(quantity.name, 0), left)
            own = _rate(bands, quantity.price)
            if count and own is not None and own != rate:
                lines.append(Part(quantity, count, own))
                left -= count
        if left:
            found.append(Part(whole, left, rate or 0))
        found += lines
    return found


def unpriced(price: Price | None, used: Mapping[str, int], tier: str | None = None) -> dict[str, int]:
    """The quantities that were used and cost nothing only because the price has no member for them, by name.

    A member of 0 is a price. One by the request, by the image, by characters or by time pays for the tokens that tell the
    same; tokens of the answer that have a price pay for its images.
    """
    if price is None:
        return {name: used[name] for name in _WHOLES if used.get(name)}
    rates = price.rates
    if "input_per_mtok" in rates and "output_per_mtok" in rates and _PAY_FOR_TOKENS.isdisjoint(used):  # nearly all
        return {}
    bands = _bands_of(price, used, tier)
    found: dict[str, int] = {}
    paid = set()
    for name, inner in PARTS.items():
        left = used.get(name, 0)
        if not left:
            continue
        if _rate(bands, _BY_NAME[name].price) is not None:
            paid.add(name)
            continue
        parts = sum(used.get(part.name, 0) for part in inner if _rate(bands, part.price) is not None)
        if parts < left:
            found[name] = left - parts
        if parts:
            paid.add(name)
    if _rate(bands, "per_request") is not None or not paid.isdisjoint(_PAY_FOR_TOKENS):
        return {}
    if "completion_tokens" in paid:
        found.pop("images", None)
    if paid:
        found.pop("audio_ms", None)
        found.pop("characters", None)
    return found


def _bands_of(price: Price, used: Mapping[str, int], tier: str | None) -> list[Rates]:
    """The bands that hold for a call, the most special first."""
    bands: list[Rates] = [price.rates]
    long = price.long_context
    if long is not None and used.get("prompt_tokens", 0) > long.above_prompt_tokens:
        bands.insert(0, long.rates)
    if tier is not None and tier in price.tiers:
        bands.insert(0, price.tiers[tier])
    return bands


def _rate(bands: list[Rates], name: str | None) -> int | None:
    """The member of that name or the nearest more general one, in one band after the other."""
    for rates in bands:
        member = name
        while member is not None:
            if member in rates:
                return rates[member]
            member = _MEMBERS[member].like
    return None


def request_rate(price: Price, used: Mapping[str, int], tier: str | None = None) -> int:
    """What a request costs beside what it uses, nano-units."""
    return _rate(_bands_of(price, used, tier), "per_request") or 0
