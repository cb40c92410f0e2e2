"""One /v1 call, from its admission to its usage event."""

from __future__ import annotations

import time
from typing import Any, Literal

import msgspec
from gevent import getcurrent
from gevent.hub import get_hub

from app import store
from app.directory import CallerRecord, Model, Price
from app.gateway.dialects.base import Dialect
from app.gateway.labels import NO_LABELS, Labels
from app.gateway.routing import FREE, Candidate, Steering
from app.metering import money, pricing
from app.metering.quantities import NAMES
from app.metering.reservations import Hold, Output, Reaped
from app.metering.usage import Attempt, Outcome, UsageEvent
from app.providers.base import UNBOUNDED, Exchange, Possible, UpstreamRequest, Usage

# The longest answer of a model of which it is not known.
LONGEST_ANSWER = 131_072

_NOTHING: dict[str, int] = dict.fromkeys(NAMES, 0)

Reason = Literal["gone", "fenced", "stopping"]


class Interrupted(BaseException):
    """Thrown into a call that waits for its upstream: the client went, the hold is lost, or the worker stops.

    Not an `Exception`, so that no adapter mistakes it for its own trouble.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


def possible(model: Model, bound: pricing.TokenBound) -> Possible:
    """The most that a call can use, tokens: a token has at least a byte, and no model reads or writes more than it can."""
    window = model.context_window or UNBOUNDED
    longest = model.max_output_tokens or model.context_window or LONGEST_ANSWER
    asked = min(bound.output or 0, LONGEST_ANSWER)  # a model may write more than an admin knows, but not without an end
    return Possible(
        prompt=min(bound.input, window * bound.prompts),
        told_prompt=UNBOUNDED if bound.reads_more else min(bound.input + pricing.ADDED_TOKENS, window * bound.prompts),
        answer=min(max(longest, asked) + bound.predicted, window) if bound.produces_output else 0,
        answers=bound.answers,
    )


class Call:
    """What is known of one call; everything a stream needs is here before it starts."""

    hold: Hold

    def __init__(
        self,
        id: str,
        endpoint: str,
        caller: CallerRecord,
        model: Model,
        dialect: Dialect,
        request: UpstreamRequest,
        bound: pricing.TokenBound,
        steering: Steering = FREE,
        origin: str = "",
        session: str = "",
        labels: Labels = NO_LABELS,
    ) -> None:
        self.id = id
        self.endpoint = endpoint
        self.caller = caller
        self.model = model
        self.dialect = dialect
        self.request = request
        self.bound = bound
        request.possible = possible(model, bound)
        self.steering = steering
        self.origin = origin  # where the client found us, such as "https://portal.example.com"
        self.session = session  # what the client's headers call its conversation
        self.labels = labels
        self.conversation = ""  # see `app.gateway.affinity`; only where several deployments can serve the call
        self.home: Candidate | None = None  # where it was before
        self.led_to = ""  # the deployment that its hash leads to
        self.probe = ""  # the half-open circuit breaker that this call tries
        self.price: Price | None = None
        self.exchange: Exchange | None = None  # the present attempt, in the end the one that answered
        self.attempts: list[Attempt] = []
        self.provider_id: str | None = None
        self.deployment_id: str | None = None
        self.started = self.beaten_at = time.monotonic()
        self.first_byte_at: float | None = None
        self.first_token_at: float | None = None  # of a stream
        self.ended_at: float | None = None
        self.outcome: Outcome = "ok"
        self.status = 200
        self.error_code: str | None = None
        self.error_message: str | None = None
        self.settled = False
        self.gone = False  # the client hung up
        self.drains = False  # and its provider is to finish all the same
        self._waiting: Any = None  # the greenlet, while it waits for the upstream

    # Interrupting

    def wait(self) -> None:
        """From here on the greenlet waits for the upstream and may be interrupted. Raises `Interrupted` where its client has
        gone meanwhile, which nobody tells twice."""
        if self.gone and not self.drains:
            raise Interrupted("gone")
        self._waiting = getcurrent()

    def resume(self) -> None:
        self._waiting = None

    def interrupt(self, reason: Reason) -> None:
        """Stop waiting for the upstream. Safe from any greenlet and from the event loop."""
        if reason == "gone":
            self.gone = True
            if self.drains:
                return
        get_hub().loop.run_callback(self._throw, reason)

    def _throw(self, reason: Reason) -> None:
        if self._waiting is not None:
            self._waiting.throw(Interrupted(reason))

    # Telling

    @property
    def paid_by(self) -> tuple[str, ...]:
        """The subscription that pays; none for a test, which its admin pays."""
        subscription_id = self.caller.models[self.model.name]
        return (subscription_id,) if subscription_id else ()

    def failed(self, outcome: Outcome, status: int, code: str | None = None, message: str | None = None) -> None:
        self.outcome, self.status, self.error_code, self.error_message = outcome, status, code, message

    def came(self) -> None:
        """A piece of a stream came. Its time to first token ends with the first that has something of the answer in it, and not
        with a head that only names the role; where an answer is no chat or text, with its first piece."""
        if self.request.capability not in ("chat", "completions") or self.usage.completion_tokens:
            self.first_token_at = time.monotonic()

    @property
    def usage(self) -> Usage:
        """What has been used so far, as far as is known."""
        return Usage() if self.exchange is None else self.exchange.usage

    @property
    def cost_nano(self) -> int:
        """What the call has cost so far; a call that failed before it produced anything costs nothing."""
        if self.first_byte_at is None:
            return 0
        used = self.usage
        return self._cost_of(used, pricing.tier_of(self.price, self.bound, used.service_tier))

    def cost_of_failed(self) -> int:
        """What the present attempt, which failed, cost all the same: nothing where its upstream told no usage."""
        used = self.usage
        if used.estimated:
            return 0
        return self._cost_of(used, pricing.tier_of(self.price, self.bound, used.service_tier))

    def _cost_of(self, used: Usage, tier: str | None) -> int:
        return min(pricing.cost_nano(self.price, used.counts, tier), money.MAX_NANO)

    def encoded_event(self) -> bytes:
        """The usage event as it stands, JSON."""
        return msgspec.json.encode(self.event())

    def late_event(self, reaped: Reaped) -> UsageEvent | None:
        """What the call cost beyond what the reaper had charged for it, as an overdraft; None when it is nothing."""
        event = self.event()
        cost = event.cost_nano - reaped.cost_nano
        if cost <= 0:
            return None
        return msgspec.structs.replace(
            event,
            kind="late",
            cost_nano=cost,
            overdraft_nano=cost,
            **_NOTHING
            | {
                "prompt_tokens": max(event.prompt_tokens - reaped.prompt_tokens, 0),
                "completion_tokens": max(event.completion_tokens - reaped.completion_tokens, 0),
            },
        )

    def output(self) -> Output | None:
        """How long its answer was, of several the mean, if that tells how long others without a limit will be."""
        hold = self.hold
        if self.bound.output is not None or not hold.bounded or not hold.amount_nano or self.outcome != "ok":
            return None
        length, most = -(-self.usage.completion_tokens // self.bound.answers), self.request.usual_output
        if length >= hold.output_limit:  # it was cut: if many are, the next limit has to be higher
            length = min(2 * length, most)
        return Output(store.outputs(self.caller.id, self.model.name), length) if length else None

    def opening(self) -> UsageEvent:
        """The usage event of a call that has only begun: who calls what."""
        caller, model, labels = self.caller, self.model.name, self.labels
        return UsageEvent(
            request_id=self.id,
            attempt=1,
            at_ms=0,
            person_id=caller.person_id,
            key_id=caller.id if caller.kind == "key" else None,
            secret_id=caller.secret_id,
            team_id=caller.team_id,
            subscription_id=caller.models.get(model) or None,
            model=model,
            endpoint=self.endpoint,
            api_type=self.request.capability,
            outcome="ok",
            status=200,
            stream=self.request.stream,
            price_id=self.price.id if self.price else None,
            session_id=labels.session_id,
            agent=labels.agent,
            subagent_id=labels.subagent_id,
            turn_id=labels.turn_id,
            tags=labels.tags,
        )

    def event(self) -> UsageEvent:
        """The usage event as it stands. Cost and tokens of a call that produced nothing are 0."""
        event = self.opening()
        event.attempt = max(len(self.attempts), 1)
        event.attempts = tuple(self.attempts)
        event.provider_id, event.deployment_id = self.provider_id, self.deployment_id
        event.outcome, event.status = self.outcome, self.status
        event.error_code, event.error_message = self.error_code, self.error_message
        event.duration_ms = int(((self.ended_at or time.monotonic()) - self.started) * 1000)
        if self.first_byte_at is not None:
            if self.first_token_at is not None:
                event.ttft_ms = int((self.first_token_at - self.started) * 1000)
            used = self.usage
            event.prompt_tokens, event.cached_tokens = used.prompt_tokens, used.cached_tokens
            event.completion_tokens = used.completion_tokens
            for name, count in used.more.items():
                setattr(event, name, count)
            event.estimated = used.estimated and not (used.certain and pricing.is_priced_by(self.price, used.certain))
            event.finish_reason = self.exchange.finish_reason if self.exchange else None
            event.service_tier = pricing.tier_of(self.price, self.bound, used.service_tier)
            event.cost_nano = self._cost_of(used, event.service_tier)
            event.unpriced = pricing.unpriced(self.price, used.counts, event.service_tier) | used.unpriced or None
        if hasattr(self, "hold"):
            hold = self.hold
            event.at_ms, event.hold_nano = hold.at_ms, hold.amount_nano
            event.overdraft_nano = max(event.cost_nano - hold.amount_nano, 0)
            event.scopes = tuple(
                [(scope.kind, scope.id, window.name) for scope, window in zip(hold.scopes, hold.windows, strict=True)]
            )
        return event
