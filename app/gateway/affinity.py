"""One warm cache: a conversation stays with the deployment that served it, whose prompt cache knows its beginning.

The deployment follows from a hash of the conversation and is the same in every process, so nothing is kept of most
conversations. Only one that had to move is kept in Redis, for an hour of silence; it is read by the reserve and written by the
settle. Health comes first: a conversation leaves a deployment whose circuit breaker is open.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NoReturn

from app import clock, store
from app.gateway import probes
from app.gateway.breakers import Breakers, deployment_breaker, provider_breaker, trip_of
from app.gateway.call import Call
from app.gateway.errors import bad_request, upstream_resting
from app.gateway.routing import Candidate, Rank, by_chance, by_conversation, in_health, in_order, to_probe, wait_s
from app.metering.reservations import NO_QUERY, Origin, RouteQuery

PROBE_MARGIN_S = 5.0  # beside the provider's timeouts


def conversation_of(call: Call) -> str:
    """The name of a call's conversation, "" for a call that is none. Two callers never share one."""
    told = call.dialect.conversation_id(call.request, call.session)
    return _hash_of(call, told) if told else ""


def _hash_of(call: Call, told: str) -> str:
    whose = f"{call.caller.id}\n{call.model.name}\n{told}"
    return blake2b(whose.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def who_keeps(call: Call, usable: list[Candidate]) -> list[Candidate]:
    """Those that can have the answer which the request goes on from: all, where it goes on from none. Raises `ApiError` 400
    if nobody can."""
    member = call.dialect.kept_upstream(call.request)
    if member is None:
        return usable
    able = [one for one in usable if one.adapter.speaks(call.dialect.name)]
    return able or _raise_not_kept(call, member)


def _raise_not_kept(call: Call, member: str) -> NoReturn:
    raise bad_request(
        f"'{member}' can't be followed: no provider of '{call.model.name}' has that answer. Send the conversation in 'input'.",
        member,
    )


def query(call: Call, usable: list[Candidate], breakers: Breakers) -> RouteQuery:
    """What a reserve is to find out for a call that several deployments can serve, or one that may not be well."""
    asked = NO_QUERY
    if len(usable) > 1:
        call.conversation = conversation_of(call)
        if call.conversation:
            asked = asked._replace(origin_key=store.origin(call.conversation))
    if breakers.trips:
        ordered = in_order(usable, call.steering, _rank(call))
        one = to_probe(ordered, breakers.trips, clock.now_ms())
        if one is not None:
            own, whole = deployment_breaker(one.deployment.id), provider_breaker(one.provider.id)
            call.probe = own if own in breakers.trips else whole
            deadlines = one.adapter.settings.deadlines
            probe_s = deadlines.connect_s + deadlines.first_byte_s + PROBE_MARGIN_S
            priority = one.deployment.priority
            peers = [
                way.deployment.id
                for way in usable
                if way.deployment.priority <= priority
                and trip_of(breakers.trips, way.deployment.id, way.provider.id) is None
            ]
            asked = asked._replace(
                probe_key=store.probe(call.probe), probe_ms=round(probe_s * 1000), peers=" ".join(peers)
            )
    return asked


def _rank(call: Call) -> Rank:
    return by_conversation(call.conversation) if call.conversation else by_chance


def choose(call: Call, usable: list[Candidate], breakers: Breakers) -> list[Candidate]:
    """The deployments to try, in order, once a call is reserved. Raises `ApiError` if all are left alone."""
    hold = call.hold
    if hold.reserved:
        breakers.refresh(hold.breakers)
        if not hold.has_probe or not _may_try(call, usable, breakers):
            call.probe = ""
    if len(usable) < 2 and not breakers.trips:
        return usable
    rank = _rank(call)
    ordered = in_order(usable, call.steering, rank, hold.origin)
    if call.conversation:
        call.home, call.led_to = ordered[0], ordered[0].deployment.id
        if hold.origin:
            call.led_to = in_order(usable, call.steering, rank)[0].deployment.id
            ordered = _home_first(call, ordered)
            if member := call.dialect.kept_upstream(call.request):
                if call.home.deployment.id != hold.origin:
                    _raise_not_kept(call, member)
                ordered = [call.home]
    now_ms = clock.now_ms()
    healthy, alone = in_health(ordered, breakers.trips, now_ms, call.probe)
    if not healthy:
        raise upstream_resting(wait_s(alone, now_ms), alone[0].trip.reason if alone[0].trip else "")
    return healthy


def _may_try(call: Call, usable: list[Candidate], breakers: Breakers) -> bool:
    """Whether the call itself is to try the half-open breaker whose probe it has, for which a client waits a little where no
    other deployment is well."""
    one = next(
        way
        for way in usable
        if call.probe in (deployment_breaker(way.deployment.id), provider_breaker(way.provider.id))
    )
    is_alone = all(trip_of(breakers.trips, way.deployment.id, way.provider.id) for way in usable)
    return probes.may_be_tried(breakers, call.probe, one.adapter, probes.PATIENT_S if is_alone else 0)


def _home_first(call: Call, ordered: list[Candidate]) -> list[Candidate]:
    """Finds a conversation's home again. If the request holds what only its home understands, that comes before all others,
    whatever its priority."""
    home = next((one for one in ordered if one.deployment.id == call.hold.origin), None)
    if home is None:
        return ordered
    call.home = home
    if home is ordered[0] or not call.dialect.is_bound(call.request):
        return ordered
    return [home, *(one for one in ordered if one is not home)]


def origin_of(call: Call) -> Origin | None:
    """What a settle is to keep of where a conversation is; None for no change."""
    if not call.conversation or call.first_byte_at is None or call.deployment_id is None:
        return None
    kept = None if call.exchange is None else call.exchange.kept_as
    if kept is not None:  # the conversation goes on by this name
        return Origin(store.origin(_hash_of(call, call.dialect.conversation_after(kept))), call.deployment_id)
    key = store.origin(call.conversation)
    if call.deployment_id != call.led_to:
        return Origin(key, call.deployment_id)
    return Origin(key, "") if call.hold.origin else None
