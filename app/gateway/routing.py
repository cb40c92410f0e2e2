"""Which way to a model: one plan for calls and for previews, and the directory as this process knows it.

Adapters live as long as their provider's settings do, and with them their kept connections.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
import structlog
from gevent.lock import BoundedSemaphore

from app import providers, store
from app.directory import Capability, Deployment, Directory, Endpoint, Model, Provider
from app.gateway.errors import bad_request
from app.gateway.redis_wire import RedisWire
from app.providers.addresses import AddressPolicy
from app.providers.base import Adapter
from app.providers.settings import SettingsError, Variables, checked
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
    """One way to a model. `hindrance` tells why it can't be used, None if it can."""

    deployment: Deployment
    provider: Provider
    adapter: Any
    hindrance: str | None = None


def plan(
    model: Model,
    capability: Capability,
    providers: Mapping[str, Known],
    endpoint: Endpoint | None = None,
    steering: Steering = FREE,
    rank: Callable[[Deployment], float] | None = None,
) -> list[Candidate]:
    """Every deployment of `model`: those that can be used in the order to try them, then the others with their reasons.

    Lower priorities come first; `rank` orders those of one priority, the lowest first (as they stand, if it is None). The
    request's steering comes before both: it picks the providers that it names, in its own order, or with fallbacks alone
    puts these last.
    """
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
        (usable if hindrance is None else others).append(Candidate(deployment, provider, adapter, hindrance))
    if len(usable) > 1:
        usable.sort(key=lambda one: (one.deployment.priority, rank(one.deployment) if rank else 0))
    if steering is FREE:
        return usable + others
    names = steering.fallbacks if steering.provider is None else (steering.provider, *steering.fallbacks)
    chosen = []
    for name in names:
        chosen += [one for one in usable if name in (one.provider.name, one.provider.id) and one not in chosen]
    rest = [one for one in usable if one not in chosen]
    if steering.provider is None:
        return rest + chosen + others
    return chosen + [one._replace(hindrance="The request steers to other providers.") for one in rest] + others


def by_weight(deployment: Deployment) -> float:
    """A rank by chance: the larger the weight, the earlier (Efraimidis and Spirakis)."""
    return -float(random.random() ** (1 / max(deployment.weight, 1e-9)))


class Routes:
    """The directory of this process; `refresh` follows the published version."""

    def __init__(self, wire: RedisWire, sealer: Sealer, policy: AddressPolicy, variables: Variables) -> None:
        self._wire = wire
        self._sealer = sealer
        self._policy = policy
        self._variables = variables
        self.version: str | None = None
        self._reading = BoundedSemaphore()
        self._begun = 0
        self._models: dict[str, Model] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._providers: dict[str, Known] = {}

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
        self._models = {model.name: model for model in directory.models if model.status != "disabled"}
        self._endpoints = {endpoint.path: endpoint for endpoint in directory.endpoints}
        self.version = directory.version
        for id, (_, adapter) in known.items():
            if adapter is not None and (id not in found or found[id].adapter is not adapter):
                adapter.close()

    def _made(self, provider: Provider) -> Adapter | None:
        """The provider's adapter; one that can't be made is told in the log and never a candidate."""
        try:
            kind = providers.adapter(provider.kind)
            values: dict[str, Any] = dict(provider.settings)
            if provider.sealed is not None:
                values |= msgspec.json.decode(self._sealer.open(provider.sealed))
            return kind(checked(kind.Settings, values, self._variables), policy=self._policy)
        except (providers.UnknownKind, SettingsError, SealingError) as error:
            log.error("a provider can't be used", provider=provider.name, reason=str(error))
            return None

    def model(self, name: str) -> Model | None:
        return self._models.get(name)

    def endpoint_active(self, path: str) -> bool:
        endpoint = self._endpoints.get(path)
        return endpoint is None or endpoint.active

    def candidates(self, model: Model, path: str, capability: Capability, steering: Steering = FREE) -> list[Candidate]:
        """The usable ways to `model` in the order to try them. Raises `ApiError` 400 if the request steers to none of them."""
        endpoint = self._endpoints.get(path)
        planned = plan(model, capability, self._providers, endpoint, steering, by_weight)
        usable = [one for one in planned if one.hindrance is None]
        if not usable and steering.provider is not None:
            names = ", ".join(filter(None, (steering.provider, *steering.fallbacks)))
            raise bad_request(f"'{model.name}' has no deployment at {names}.", "provider")
        return usable

    def provider_names(self, model: Model) -> set[str]:
        """Names and ids of the active providers of `model`."""
        known = [self._providers.get(deployment.provider_id) for deployment in model.deployments]
        active = [one.provider for one in known if one is not None and one.adapter is not None and one.provider.active]
        return {name for provider in active for name in (provider.name, provider.id)}
