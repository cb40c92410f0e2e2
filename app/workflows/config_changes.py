"""Saved configurations at work: saving the present state, importing a document, activating a saved one.

Each is one unit of work, all or nothing, and what changed is read from the state before and after it. So a dry run does
exactly what the change would do and takes it back, and the same document twice changes nothing the second time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from msgspec import UNSET
from sqlalchemy import func, select

from app import current
from app.clock import now
from app.domain import audit, catalog, prices, providers, saved_configs, settings
from app.domain.catalog import DeploymentSpec, Model
from app.domain.errors import DomainError, Invalid, Unavailable
from app.domain.person import Person
from app.domain.providers import Endpoint, Provider
from app.domain.saved_configs import SavedConfig
from app.extensions import db, transaction
from app.providers import UnknownKind, adapter
from app.providers import settings as adapter_settings
from app.workflows import catalog_changes, config_document, offboarding
from app.workflows.config_document import (
    Change,
    Counts,
    Document,
    EndpointEntry,
    ModelEntry,
    ProviderEntry,
    Routing,
    Wanted,
    named_values,
)

FIRST = "Initial"
DEFAULT_MODEL = "gateway.default_model"  # the setting that routing is

Secrets = Mapping[str, Mapping[str, str]]  # by the name of a provider and of its setting


class MissingSecret(msgspec.Struct, frozen=True, kw_only=True):
    """A secret that a provider needs and does not have; it is disabled until somebody enters it."""

    provider: str
    member: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a change did, or would do. `previous_id` is the saved configuration of the state before, None if nothing
    changed."""

    dry_run: bool
    changes: list[Change]
    counts: Counts
    missing_secrets: list[MissingSecret]
    previous_id: str | None


class _TakenBack(Exception):
    """Carries an outcome out of a unit of work that must leave nothing."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


def save(*, by: Person | None, name: str, description: str = "") -> SavedConfig:
    """Save the present state under a name. Raises `Invalid` or `Conflict` naming the field."""
    return saved_configs.create(config_document.present(), by=by, name=name, description=description)


def ensure_first() -> None:
    """Save the present state as the default if there is no saved configuration yet."""
    if saved_configs.default() is None:
        saved_configs.make_default(save(by=None, name=FIRST, description="The configuration of the first start."))


def record_export(item: SavedConfig | None, *, by: Person) -> None:
    """Record that somebody takes out a saved configuration, or the present one."""
    audit.record(by, "config.export", "config", item.id if item else "current", name=item.name if item else None)


def import_document(
    document: Any, *, by: Person | None, dry_run: bool = False, prune: bool = False, secrets: Secrets | None = None
) -> Outcome:
    """Bring the state to what a document says, in a unit of work of its own. What it does not name stays; with `prune` it
    is deleted, in the sections that the document has. Raises `Invalid` naming the member that does not fit."""
    wanted = config_document.read(document)

    def work() -> Outcome:
        before = config_document.present()
        missing = _apply(wanted, by=by, secrets=secrets or {}, prune=prune)
        outcome = _outcome(before, missing, dry_run)
        if dry_run or not outcome.changes:
            raise _TakenBack(outcome)
        previous = _saved_as(before, by=by, name=f"Before import, {now():%Y-%m-%d %H:%M:%S}")
        facts = {"counts": msgspec.to_builtins(outcome.counts), "previous": previous.name}
        audit.record(by, "config.import", "config", previous.id, name=previous.name, facts=facts)
        return msgspec.structs.replace(outcome, previous_id=previous.id)

    try:
        return transaction(work)
    except _TakenBack as taken_back:
        settings.read_anew()
        return taken_back.outcome


def activate(item: SavedConfig, *, by: Person | None) -> Outcome:
    """Bring the state to a saved configuration and make it the default. What it does not hold is switched off, not deleted.
    Raises `Invalid` if it no longer fits."""
    before = config_document.present()
    wanted = config_document.read(item.document)
    if DEFAULT_MODEL in current.config().decided:
        wanted.routing = UNSET
    missing = _apply(wanted, by=by, secrets={}, prune=False)
    _switch_off_others(wanted, by=by)
    outcome = _outcome(before, missing, dry_run=False)
    previous = _saved_as(before, by=by, name=f"Before {item.name}, {now():%Y-%m-%d %H:%M:%S}")
    saved_configs.make_default(item)
    facts = {"counts": msgspec.to_builtins(outcome.counts), "previous": previous.name}
    audit.record(by, "config.activate", "config", item.id, name=item.name, facts=facts)
    return msgspec.structs.replace(outcome, previous_id=previous.id)


def effect_of(item: SavedConfig, against: SavedConfig | None = None) -> list[Change]:
    """What activating a saved configuration would change now, or where the state is another saved one."""
    state = against.document if against else config_document.present()
    after = config_document.switched_off(state, item.document)
    if DEFAULT_MODEL in current.config().decided:
        after["routing"] = state["routing"]
    return config_document.differences(state, after)


def _outcome(before: Document, missing: list[MissingSecret], dry_run: bool) -> Outcome:
    db.session.flush()
    db.session.expire_all()  # relations are read anew
    changes = config_document.differences(before, config_document.present())
    return Outcome(
        dry_run=dry_run,
        changes=changes,
        counts=config_document.counts(changes),
        missing_secrets=missing,
        previous_id=None,
    )


def _saved_as(document: Document, *, by: Person | None, name: str) -> SavedConfig:
    """The default if it is just this state, else the state saved anew."""
    present = saved_configs.default()
    if present is not None and present.document == document:
        return present
    return saved_configs.create(document, by=by, name=name, automatic=True)


@contextmanager
def _at(section: str, position: int, name: str) -> Iterator[None]:
    """Names the place in the document of what a verb refuses: the document does not fit."""
    try:
        yield
    except Unavailable:
        raise
    except DomainError as error:
        place = f"config.{section}[{position}]" + (f".{error.field}" if error.field else "")
        raise Invalid(f"{name}: {error.message}", place) from None


def _apply(wanted: Wanted, *, by: Person | None, secrets: Secrets, prune: bool) -> list[MissingSecret]:
    _must_be_of(wanted, secrets)
    if prune and wanted.models is not UNSET:
        _delete_other_models({entry.name for entry in wanted.models}, by=by)
    missing: list[MissingSecret] = []
    for position, provider in enumerate(wanted.providers or ()):
        with _at("providers", position, provider.name):
            missing += _apply_provider(provider, secrets.get(provider.name, {}), by=by)
    ids = {name.lower(): id for id, name in db.session.execute(select(Provider.id, Provider.name))}
    _free_aliases(wanted.models or ())
    for position, model in enumerate(wanted.models or ()):
        with _at("models", position, model.name):
            _apply_model(model, ids, by=by)
    for position, endpoint in enumerate(wanted.endpoints or ()):
        with _at("endpoints", position, endpoint.path):
            _apply_endpoint(endpoint, ids, by=by)
    if prune:
        _prune_others(wanted, by=by)
    if wanted.routing is not UNSET:
        _apply_routing(wanted.routing, by=by)
    return missing


def _must_be_of(wanted: Wanted, secrets: Secrets) -> None:
    """Raises `Invalid` for secrets of providers that the document does not have."""
    if unknown := secrets.keys() - {entry.name for entry in wanted.providers or ()}:
        raise Invalid("The document has no such provider.", f"secrets.{min(unknown)}")


def _apply_routing(routing: Routing, *, by: Person | None) -> None:
    if routing.default_model is UNSET or routing.default_model == current.config().gateway.default_model:
        return
    try:
        settings.update({DEFAULT_MODEL: routing.default_model}, by=by)
    except DomainError as error:
        error.field = "config.routing.default_model"
        raise


def _apply_provider(entry: ProviderEntry, secrets: Mapping[str, str], *, by: Person | None) -> list[MissingSecret]:
    item = db.session.scalar(select(Provider).where(func.lower(Provider.name) == entry.name.lower()))
    values = named_values(entry, "provider", "config", "secrets")
    if item is None:
        if entry.provider is UNSET:
            raise Invalid("A new provider needs its kind.", "provider")
        needed = _needed(entry, entry.provider, secrets, {})
        if needed:
            values["status"] = "disabled"
        config = {} if entry.config is UNSET else entry.config
        providers.create(by=by, kind=entry.provider, config={**config, **secrets}, **values)
        return needed
    kind = item.kind if entry.provider is UNSET else entry.provider
    if not secrets and _is_as(item, entry):
        return _needed(entry, kind, {}, item.hints)
    config = dict(item.settings if entry.config is UNSET else entry.config)
    variables = adapter_settings.names_with(_declared(kind), "secret_env")
    config = {**dict.fromkeys(variables), **config, **secrets}
    providers.update(item, by=by, kind=kind, config=config, drop_moved=True, **values)
    needed = _needed(entry, kind, {}, item.hints)
    if needed and item.status == "active":
        providers.switch(item, "disabled", by=by)
    return needed


def _is_as(item: Provider, entry: ProviderEntry) -> bool:
    """Whether a provider already is as an entry says."""
    told = {**item.summary(), "provider": item.kind, "config": item.settings}
    return all(told[name] == value for name, value in named_values(entry, "secrets").items())


def _needed(
    entry: ProviderEntry, kind: str, given: Mapping[str, str], stored: Mapping[str, Any]
) -> list[MissingSecret]:
    """The secrets that an entry says that its provider has, and that are neither given nor stored."""
    known = adapter_settings.names_with(_declared(kind), "secret")
    if unknown := [name for name in (*entry.secrets, *given) if name not in known]:
        raise Invalid(f"Providers of the kind {kind} have no secret {unknown[0]!r}.", "secrets")
    return [
        MissingSecret(provider=entry.name, member=name)
        for name in entry.secrets
        if name not in given and name not in stored
    ]


def _declared(kind: str) -> type[adapter_settings.Settings]:
    try:
        return adapter(kind).Settings
    except UnknownKind as error:
        raise Invalid(f"{str(error)[:1].upper()}{str(error)[1:]}.", "provider") from None


def _free_aliases(entries: Any) -> None:
    """Takes away the other names that models are about to lose, so that others may get them in the same document."""
    for entry in entries:
        item = catalog.find_model(entry.name)
        if item is not None and entry.aliases is not UNSET:
            item.aliases = [alias for alias in item.aliases if alias in entry.aliases]
    db.session.flush()


def _apply_model(entry: ModelEntry, ids: Mapping[str, str], *, by: Person | None) -> None:
    values = config_document.model_values(entry)
    if entry.deployments is not UNSET:
        specs = []
        for position, one in enumerate(entry.deployments):
            if one.provider.lower() not in ids:
                raise Invalid(f"No provider has the name {one.provider!r}.", f"deployments[{position}].provider")
            rest = named_values(one, "provider")
            specs.append(DeploymentSpec(provider_id=ids[one.provider.lower()], **rest))
        values["deployments"] = specs
    item = catalog.find_model(entry.name)
    if item is None:
        catalog.create_model(by=by, name=entry.name, **values)
    elif not _is_same(item, values):
        catalog_changes.change(item, by=by, **values)


def _is_same(item: Model, values: Mapping[str, Any]) -> bool:
    """Whether a model already has these values: it is left alone then."""
    specs = [msgspec.to_builtins(spec) for spec in values.get("deployments", ())]
    same: dict[str, Any] = {"deployments": [one.summary() for one in item.deployments]}
    wanted = {**values, **({"deployments": specs} if "deployments" in values else {})}
    if "price" in wanted:
        same["price"] = item.price.terms if item.price else prices.UNPRICED
        wanted["price"] = prices.read(wanted["price"] or {})
    order = ("priority", "provider_id", "upstream_model")
    for side in (same, wanted):
        if "deployments" in side:
            side["deployments"] = sorted(side["deployments"], key=lambda one: [one[name] for name in order])
    return all((same[name] if name in same else getattr(item, name)) == value for name, value in wanted.items())


def _apply_endpoint(entry: EndpointEntry, ids: Mapping[str, str], *, by: Person | None) -> None:
    item = db.session.scalar(providers.all_endpoints().where(Endpoint.path == entry.path))
    if item is None:
        raise Invalid("This path is not served.", "path")
    changes = named_values(entry, "path", "mapping")
    if entry.mapping is not UNSET:
        for position, name in enumerate(entry.mapping.providers):
            if name.lower() not in ids:
                raise Invalid(f"No provider has the name {name!r}.", f"mapping.providers[{position}]")
        changes["providers"] = [ids[name.lower()] for name in entry.mapping.providers]
    if changes.get("active", item.active) != item.active or set(changes.get("providers", item.providers)) != set(
        item.providers
    ):
        providers.update_endpoint(item, by=by, **changes)


def _delete_other_models(names: set[str], *, by: Person | None) -> None:
    for item in db.session.scalars(catalog.all_models()).all():
        if item.name not in names:
            catalog_changes.delete(item, by=by)


def _prune_others(wanted: Wanted, *, by: Person | None) -> None:
    """Deletes the providers that a document does not name; endpoints that it does not name get back their defaults."""
    if wanted.providers is not UNSET:
        names = {entry.name.lower() for entry in wanted.providers}
        for provider in db.session.scalars(providers.search()).all():
            if provider.name.lower() not in names:
                offboarding.withdraw(provider, by=by)
    if wanted.endpoints is not UNSET:
        paths = {entry.path for entry in wanted.endpoints}
        for endpoint in db.session.scalars(providers.all_endpoints()).all():
            if endpoint.path not in paths and (not endpoint.active or endpoint.providers):
                providers.update_endpoint(endpoint, by=by, active=True, providers=[])


def _switch_off_others(wanted: Wanted, *, by: Person | None) -> None:
    """Switches off what a saved configuration does not hold."""
    models = {entry.name for entry in wanted.models or ()}
    for model in db.session.scalars(catalog.all_models()).all():
        if model.name not in models and model.status != "disabled":
            catalog_changes.change(model, by=by, status="disabled")
    names = {entry.name.lower() for entry in wanted.providers or ()}
    for provider in db.session.scalars(providers.search(status="active")).all():
        if provider.name.lower() not in names:
            providers.switch(provider, "disabled", by=by)
    paths = {entry.path for entry in wanted.endpoints or ()}
    for endpoint in db.session.scalars(providers.all_endpoints(status="active")).all():
        if endpoint.path not in paths:
            providers.update_endpoint(endpoint, by=by, active=False)
