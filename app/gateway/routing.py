"""The noticeboard as this process knows it, compiled once a version: which model, which way to it.

Adapters live as long as their provider's settings do, and with them their kept connections.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import structlog
from gevent.lock import BoundedSemaphore

from app import providers, store
from app.directory import Deployment, Directory, Endpoint, Model, Provider
from app.gateway.errors import bad_request
from app.gateway.redis_wire import RedisWire
from app.providers.addresses import AddressPolicy
from app.providers.base import Adapter
from app.providers.settings import SettingsError, Variables, checked
from app.sealing import Sealer, SealingError

log = structlog.get_logger("gateway.routing")
_directory = msgspec.json.Decoder(Directory)


class Candidate(NamedTuple):
    """One way to a model that may be tried."""

    deployment: Deployment
    provider: Provider
    adapter: Adapter


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
        self._providers: dict[str, tuple[Provider, Adapter | None]] = {}

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
            found[provider.id] = before if before and before[0] == provider else (provider, self._made(provider))
        # All at once: no call sees half of a version.
        self._providers = found
        self._models = {model.name: model for model in directory.models if model.status != "disabled"}
        self._endpoints = {endpoint.path: endpoint for endpoint in directory.endpoints}
        self.version = directory.version
        for id, (_, adapter) in known.items():
            if adapter is not None and found.get(id, (None, None))[1] is not adapter:
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

    def candidates(
        self, model: Model, path: str, provider: str | None = None, fallbacks: Sequence[str] | None = None
    ) -> list[Candidate]:
        """The ways to `model` in the order to try them: by priority, by chance within one, by weight.

        `provider` and `fallbacks` (names or ids) narrow them to the model's own deployments there, in that order.
        Raises `ApiError` 400 when they name none of them.
        """
        endpoint = self._endpoints.get(path)
        ways = []
        for deployment in model.deployments:
            found, adapter = self._providers.get(deployment.provider_id, (None, None))
            if found is None or adapter is None or not found.active:
                continue
            if endpoint is not None and endpoint.providers and found.id not in endpoint.providers:
                continue
            ways.append(Candidate(deployment, found, adapter))
        if len(ways) > 1:
            # Weighted order without replacement (Efraimidis and Spirakis): the larger the weight, the earlier.
            ways.sort(
                key=lambda way: (way.deployment.priority, -(random.random() ** (1 / max(way.deployment.weight, 1e-9))))
            )
        if provider is None and not fallbacks:
            return ways
        wanted = [provider] if provider is not None else []
        wanted += fallbacks or []
        chosen = [way for name in wanted for way in ways if name in (way.provider.name, way.provider.id)]
        if provider is None:
            chosen = [way for way in ways if way not in chosen] + chosen
        if not chosen:
            raise bad_request(f"'{model.name}' has no deployment at {', '.join(wanted)}.", "provider")
        return chosen

    def provider_names(self, model: Model) -> set[str]:
        """Names and ids of the active providers of `model`."""
        names: set[str] = set()
        for way in self.candidates(model, ""):
            names |= {way.provider.name, way.provider.id}
        return names
