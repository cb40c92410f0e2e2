"""Which way to a model: one plan for calls and for previews, and the directory as this process knows it.

A plan is made in three steps: what a request may use, in which order, and what its circuit breakers leave of that. The order
keeps a conversation on its deployment, whose cache is warm (`app.gateway.affinity`).

Adapters live as long as their provider's settings do, and with them their kept connections.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
import structlog
from gevent.lock import BoundedSemaphore

from app import providers, store
from app.clock import from_ms
from app.directory import (
    CallerRecord,
    Capability,
    Deployment,
    Directory,
    Endpoint,
    Model,
    PersonalCredential,
    Provider,
    place_of,
    place_of_credential,
)
from app.gateway.breakers import Breakers, Trip, Trips, deployment_breaker, provider_breaker, trip_of
from app.gateway.errors import bad_request
from app.gateway.redis_wire import RedisWire
from app.providers.addresses import AddressPolicy
from app.providers.base import Adapter
from app.providers.settings import SettingsError, Variables, checked, destination_of, with_credential
from app.runtime.sealing import Sealer, SealingError

log = structlog.get_logger("gateway.routing")
_directory = msgspec.json.Decoder(Directory)


class Steering(NamedTuple):
    """Where a request wants to be served: names or ids of providers, the first of them and those to fall back to."""

    provider: str | None = None
    fallbacks: tuple[str, ...] = ()


FREE = Steering()


class Known(NamedTuple):
    """A provider as a plan needs it. `adapter` is None if none can be made from its settings; only `abilities` are asked
    of it, so that a preview may give the kind's class instead."""

    provider: Provider
    adapter: Any


class Candidate(NamedTuple):
    """One way to a model. `hindrance` tells why it can't be used, None if it can; `trip` what its circuit breaker says,
    None for a closed one."""

    deployment: Deployment
    provider: Provider
    adapter: Any
    hindrance: str | None = None
    trip: Trip | None = None
    credential_id: str | None = None  # of the person's own credential that `adapter` sends


PROBED_S = 5  # for others to wait while a probe is on its way

Rank = Callable[[Deployment], float]
CLOSED: Trips = {}


def plan(
    model: Model,
    capability: Capability,
    providers: Mapping[str, Known],
    endpoint: Endpoint | None = None,
    steering: Steering = FREE,
    rank: Rank | None = None,
    trips: Trips = CLOSED,
    now_ms: int = 0,
    origin: str = "",
) -> list[Candidate]:
    """Every deployment of `model`: those that can be used in the order to try them, then the others with their reasons.

    Three steps, which a call takes one by one: `allowed`, `in_order`, `in_health`.
    """
    usable, others = allowed(model, capability, providers, endpoint, steering)
    healthy, resting = in_health(in_order(usable, steering, rank, origin), trips, now_ms)
    return healthy + resting + others


def allowed(
    model: Model,
    capability: Capability,
    providers: Mapping[str, Known],
    endpoint: Endpoint | None = None,
    steering: Steering = FREE,
) -> tuple[list[Candidate], list[Candidate]]:
    """The deployments of `model` that a request may use, and the others with their reasons."""
    usable: list[Candidate] = []
    others: list[Candidate] = []
    for deployment in model.deployments:
        known = providers.get(deployment.provider_id)
        if known is None:
            continue
        provider, adapter = known
        hindrance = None
        if not provider.active:
            hindrance = "Its provider is disabled."
        elif endpoint is not None and endpoint.providers and provider.id not in endpoint.providers:
            hindrance = f"{endpoint.path} may not use its provider."
        elif adapter is None:
            hindrance = "Its provider's settings can't be used."
        elif capability not in adapter.abilities:
            hindrance = f"Providers of the kind {provider.kind} can't do {capability}."
        elif steering.provider is not None and _place(provider, steering) < 0:
            hindrance = "The request steers to other providers."
        (usable if hindrance is None else others).append(Candidate(deployment, provider, adapter, hindrance))
    return usable, others


def in_order(
    usable: list[Candidate], steering: Steering = FREE, rank: Rank | None = None, origin: str = ""
) -> list[Candidate]:
    """Candidates in the order to try them. The request's own order comes first: the providers that it names, in its
    order, or with fallbacks alone these last. Then lower priorities, and of one priority the deployment `origin`, which
    served the conversation before; `rank` orders the rest, the lowest first."""
    if len(usable) < 2:
        return usable

    def key(one: Candidate) -> tuple[int, int, bool, float]:
        deployment = one.deployment
        place = 0 if steering is FREE else _place(one.provider, steering)
        return place, deployment.priority, deployment.id != origin, rank(deployment) if rank else 0.0

    return sorted(usable, key=key)


def in_health(
    ordered: list[Candidate], trips: Trips, now_ms: int, probe: str = ""
) -> tuple[list[Candidate], list[Candidate]]:
    """Candidates as their circuit breakers let them be tried, and those that are left alone, with their reasons.

    `probe` names the half-open breaker that this call is to try: it begins there. Other half-open ones come after the closed
    ones. Where none is closed those are tried all the same whose failure costs no time, the open ones last: a refusal would
    help nobody. Those that hang are left to their probe: else every client would wait in vain.
    """
    if not trips:
        return ordered, []
    probed: list[Candidate] = []
    closed: list[Candidate] = []
    half_open: list[Candidate] = []
    open_: list[Candidate] = []
    for one in ordered:
        trip = trip_of(trips, one.deployment.id, one.provider.id)
        if trip is None:
            closed.append(one)
        elif trip.is_open(now_ms):
            open_.append(one._replace(trip=trip))
        elif not probed and probe in (deployment_breaker(one.deployment.id), provider_breaker(one.provider.id)):
            probed.append(one._replace(trip=trip))
        else:
            half_open.append(one._replace(trip=trip))
    if not closed:
        rest = half_open + open_
        alone = [one._replace(hindrance=_why_alone(one.trip, now_ms)) for one in rest if _hangs(one)]
        return probed + [one for one in rest if not _hangs(one)], alone
    return probed + closed + half_open, [one._replace(hindrance=_why_alone(one.trip, now_ms)) for one in open_]


def to_probe(ordered: list[Candidate], trips: Trips, now_ms: int) -> Candidate | None:
    """The half-open candidate that would come before every closed one, with its trip, or where none is closed, the first
    one that hangs, as the others are tried anyhow; None if there is none."""
    found = hanging = None
    for one in ordered:
        trip = trip_of(trips, one.deployment.id, one.provider.id)
        if trip is None:
            return found
        if not trip.is_open(now_ms):
            found = found or one._replace(trip=trip)
            hanging = hanging or (one._replace(trip=trip) if trip.hangs else None)
    return hanging


def wait_s(alone: list[Candidate], now_ms: int) -> int:
    """After how many whole seconds one of those that are left alone may be tried again."""
    wait_ms = min(one.trip.until_ms - now_ms for one in alone if one.trip is not None)
    return -(-wait_ms // 1000) if wait_ms > 0 else PROBED_S


def _hangs(one: Candidate) -> bool:
    return one.trip is not None and one.trip.hangs


def _why_alone(trip: Trip | None, now_ms: int) -> str:
    assert trip is not None
    if not trip.is_open(now_ms):
        return f"One request at a time may try it: {trip.reason}"
    moment = from_ms(trip.until_ms).strftime("%H:%M:%S UTC")
    kept = "Its circuit breaker is open" if trip.times else "It asked to be left alone"
    return f"{kept} until {moment}: {trip.reason}"


def _place(provider: Provider, steering: Steering) -> int:
    """The place of a provider among those that a request names, from 0; -1 for one that it does not name."""
    first = () if steering.provider is None else (steering.provider,)
    for place, name in enumerate((*first, *steering.fallbacks)):
        if name in (provider.name, provider.id):
            return place
    return -1


def by_chance(deployment: Deployment) -> float:
    """A rank by chance: the larger the weight, the earlier (Efraimidis and Spirakis)."""
    return -math.log(1 - random.random()) / max(deployment.weight, LEAST_WEIGHT)


def by_conversation(conversation: str) -> Rank:
    """A rank by rendezvous hashing: the same for the same conversation and deployment wherever it is worked out, shares as
    by chance; a deployment that comes or goes moves no conversation but its own."""

    def rank(deployment: Deployment) -> float:
        digest = blake2b(f"{conversation}:{deployment.id}".encode(), digest_size=8).digest()
        share = (int.from_bytes(digest, "big") + 0.5) / 2**64
        return -math.log(share) / max(deployment.weight, LEAST_WEIGHT)

    return rank


LEAST_WEIGHT = 1e-9
MOST_PERSONAL = 500  # adapters with people's own credentials that a process keeps, with their connections


def _by_name(directory: Directory) -> dict[str, Model]:
    """The models by all their names; where two claim one, it is the name of the one that is not only called so too."""
    called = {alias: model for model in directory.models for alias in model.aliases}
    return called | {model.name: model for model in directory.models}


class Routes:
    """The directory of this process; `refresh` follows the published version.

    `default_model` serves the names that no model has.
    """

    def __init__(
        self,
        wire: RedisWire,
        sealer: Sealer,
        policy: AddressPolicy,
        variables: Variables,
        default_model: str | None = None,
    ) -> None:
        self._wire = wire
        self._sealer = sealer
        self._policy = policy
        self._variables = variables
        self.default_model = default_model
        self.told_settings: Callable[[dict[str, Any]], None] | None = None  # hears the settings that admins have stored
        self.breakers = Breakers(wire.call)
        self.version: str | None = None
        self._reading = BoundedSemaphore()
        self._begun = 0
        self._models: dict[str, Model] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._providers: dict[str, Known] = {}
        self._personal: OrderedDict[tuple[str, str], tuple[Provider, Adapter | None]] = OrderedDict()

    def begin(self) -> None:
        """Read the noticeboard before the first call, if anything is published. Raises `RedisAway`."""
        version = self._wire.call("GET", store.DIRECTORY_VERSION)
        self.refresh(None if version is None else version.decode())

    def refresh(self, version: str | None) -> None:
        """Read the noticeboard if it bears another version than the one known. Raises `RedisAway`.

        One call reads it for all that wait; none goes on by an older directory than it has heard of.
        """
        if version is None or version == self.version:
            return
        begun = self._begun
        with self._reading:
            if version != self.version and begun == self._begun:  # what was begun since is new enough
                self._begun += 1
                self._read()

    def _read(self) -> None:
        document = self._wire.call("GET", store.DIRECTORY)
        if document is None:
            return
        directory = _directory.decode(document)
        known, found = self._providers, {}
        for provider in directory.providers:
            before = known.get(provider.id)
            found[provider.id] = (
                before if before and before.provider == provider else Known(provider, self._made(provider))
            )
        # All at once: no call sees half of a version.
        self._providers = found
        self._models = _by_name(directory)
        self._endpoints = {endpoint.path: endpoint for endpoint in directory.endpoints}
        if self.told_settings is not None:
            self.told_settings(directory.settings)
        self.version = directory.version
        self.breakers.forget_rows()
        for id, (_, adapter) in known.items():
            if id in found and found[id].adapter is adapter:
                continue
            ways = [way.id for model in directory.models for way in model.deployments if way.provider_id == id]
            self.breakers.forget(id, ways)
            if adapter is not None:
                adapter.close()

    def _made(self, provider: Provider) -> Adapter | None:
        """The provider's adapter; one that can't be made is told in the log and never a candidate."""
        try:
            kind = providers.adapter(provider.kind)
            values: dict[str, Any] = dict(provider.settings)
            if provider.sealed is not None:
                values |= msgspec.json.decode(self._sealer.open(provider.sealed, place_of(provider.id)))
            return kind(checked(kind.Settings, values, self._variables), policy=self._policy)
        except (providers.UnknownKind, SettingsError, SealingError) as error:
            log.error("a provider can't be used", provider=provider.name, reason=str(error))
            return None

    def with_credentials(self, caller: CallerRecord, candidates: list[Candidate]) -> list[Candidate]:
        """`candidates` with adapters that send the caller's own credentials, where the provider takes these and the caller
        has one for where its requests go now."""
        if not caller.credentials:
            return candidates
        return [self._with_credential(caller, candidate) for candidate in candidates]

    def _with_credential(self, caller: CallerRecord, candidate: Candidate) -> Candidate:
        provider = candidate.provider
        credential = caller.credentials.get(provider.id)
        if credential is None or not candidate.adapter.settings.personal_credentials:
            return candidate
        name = (caller.person_id, credential.sealed)
        provider_then, adapter = self._personal.get(name, (None, None))
        if provider_then == provider:
            self._personal.move_to_end(name)
        else:
            if adapter is not None:
                adapter.close()
            adapter = self._made_with(caller, credential, provider)
            self._personal[name] = provider, adapter
            if len(self._personal) > MOST_PERSONAL:
                _, (_, oldest) = self._personal.popitem(last=False)
                if oldest is not None:
                    oldest.close()
        return candidate if adapter is None else candidate._replace(adapter=adapter, credential_id=credential.id)

    def _made_with(self, caller: CallerRecord, credential: PersonalCredential, provider: Provider) -> Adapter | None:
        """The provider's adapter with a person's own credential; None if it can't be sent there, which the log tells."""
        try:
            kind = providers.adapter(provider.kind)
            destination = destination_of(kind.Settings, provider.settings)
            place = place_of_credential(credential.id, caller.person_id, provider.id, destination)
            token = self._sealer.open(credential.sealed, place).decode()
            values = with_credential(kind.Settings, provider.settings, token)
            return kind(checked(kind.Settings, values, self._variables), policy=self._policy)
        except (SettingsError, SealingError) as error:
            log.warning("a personal credential can't be used", credential=credential.id, reason=str(error))
            return None

    def model(self, name: str) -> Model | None:
        """The model of that name, which may be another name of it; None for none and for a disabled one."""
        model = self._models.get(name)
        return None if model is None or model.status == "disabled" else model

    def model_for(self, name: str) -> Model | None:
        """The model that serves calls of `name`: the default one if no model is called so."""
        if name not in self._models and self.default_model is not None:
            name = self.default_model
        return self.model(name)

    def endpoint_active(self, path: str) -> bool:
        endpoint = self._endpoints.get(path)
        return endpoint is None or endpoint.active

    def candidates(self, model: Model, path: str, capability: Capability, steering: Steering = FREE) -> list[Candidate]:
        """The deployments of `model` that a request may use. Raises `ApiError` 400 if the request steers to none of them."""
        usable, _ = allowed(model, capability, self._providers, self._endpoints.get(path), steering)
        if not usable and steering.provider is not None:
            names = ", ".join(filter(None, (steering.provider, *steering.fallbacks)))
            raise bad_request(f"'{model.name}' has no deployment at {names}.", "provider")
        return usable

    def provider_names(self, model: Model) -> set[str]:
        """Names and ids of the active providers of `model`."""
        known = [self._providers.get(deployment.provider_id) for deployment in model.deployments]
        active = [one.provider for one in known if one is not None and one.adapter is not None and one.provider.active]
        return {name for provider in active for name in (provider.name, provider.id)}
