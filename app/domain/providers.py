"""Providers: the upstreams that serve models, and the /v1 endpoints with the providers that each can use.

A provider's secrets are encrypted before they reach the database; readers see masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta
from sqlalchemy import Index, Select, String, Text, func, select
from sqlalchemy.orm import Mapped, mapped_column

from app import current
from app import providers as adapters
from app.clock import now
from app.directory import place_of
from app.domain import audit, fields, names
from app.domain.changes import mark_for_publication
from app.domain.errors import Conflict, Invalid, NotFound
from app.domain.person import Person
from app.extensions import Base, db
from app.gateway.endpoints import ENDPOINTS
from app.providers import settings as adapter_settings
from app.providers.addresses import AddressPolicy, AddressRefused, Origin
from app.providers.base import Adapter, CheckResult, ModelReport, Recognised
from app.runtime.ids import new_id

UNSET = msgspec.UNSET
Unset = msgspec.UnsetType

MASK = "••••"
Status = Literal["active", "disabled"]
STATUSES: tuple[Status, ...] = get_args(Status)


class ProviderFields(msgspec.Struct, kw_only=True):
    """The editable fields of every provider. Each has a column in `Provider`. The Struct of its adapter has the rest."""

    type: Annotated[Literal["api", "web"], Meta(title="Type", extra={"refusal": "Choose api or web."})] = "api"
    name: Annotated[
        str,
        Meta(
            max_length=names.LONGEST,
            title="Name",
            description=f"The name in lists and reports. At most {names.LONGEST} characters.",
            extra={"needed": "Enter a name.", "read": names.checked},
        ),
    ]
    status: Annotated[
        Status,
        Meta(
            title="Status",
            description="A disabled provider gets no requests; models use their other deployments.",
            extra={"labels": {"active": "Active", "disabled": "Disabled"}},
        ),
    ] = "active"


class Provider(Base):
    """An upstream. `settings` are the public settings, `sealed` the encrypted secrets, `hints` the visible parts of their
    masks."""

    __tablename__ = "provider"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    type: Mapped[str] = mapped_column(String(8), default="api")
    name: Mapped[str] = mapped_column(String(100))
    kind: Mapped[str] = mapped_column(String(32))
    status: Mapped[str] = mapped_column(String(16), default="active")
    status_at: Mapped[datetime | None] = mapped_column(default=now)  # since when it has this status
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    sealed: Mapped[str | None] = mapped_column(Text)
    hints: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)

    @property
    def config(self) -> dict[str, Any]:
        """All settings with secrets masked: safe to show."""
        return {**self.settings, **self.hints}

    @property
    def addresses(self) -> list[str]:
        """The configured addresses that its requests go to; empty if the adapter's defaults apply."""
        if self.kind not in adapters.kinds():
            return []
        names = adapter_settings.names_with(adapters.adapter(self.kind).Settings, "address")
        return [self.settings[name] for name in names if self.settings.get(name)]

    def summary(self) -> dict[str, Any]:
        return {**fields.told(ProviderFields, self), "kind": self.kind, "config": self.config}


Index("uq_provider_name", func.lower(Provider.name), unique=True)


class Endpoint(Base):
    """A /v1 endpoint: whether it is active, and the providers that it can use (an empty list means all)."""

    __tablename__ = "endpoint"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    path: Mapped[str] = mapped_column(String(64), unique=True)
    active: Mapped[bool] = mapped_column(default=True)
    providers: Mapped[list[str]] = mapped_column(default=list)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)

    def summary(self) -> dict[str, Any]:
        return {"active": self.active, "providers": list(self.providers)}


def get(id: str) -> Provider:
    """The provider with this id. Raises `NotFound`."""
    provider = db.session.get(Provider, id)
    if provider is None:
        raise NotFound("This provider does not exist.")
    return provider


def search(
    *, type: str | None = None, status: str | None = None, search: str | None = None, kind: str | None = None
) -> Select[Provider]:
    """A query of the providers that match, by name."""
    query = select(Provider).order_by(func.lower(Provider.name))
    if search:
        query = query.where(
            Provider.name.icontains(search, autoescape=True) | Provider.kind.icontains(search, autoescape=True)
        )
    if type:
        query = query.where(Provider.type == type)
    if kind:
        query = query.where(Provider.kind == kind)
    return query.where(Provider.status == status) if status else query


def create(*, by: Person | None, name: str, kind: str, config: Mapping[str, Any], **values: Any) -> Provider:
    """Create a provider with the given `ProviderFields`. Raises `Invalid` naming the field (`config.<setting>` for an
    adapter's setting)."""
    provider = Provider(id=new_id(), kind=kind, settings={})
    _fill_provider(provider, {**fields.usual(ProviderFields), **values, "name": name}, config)
    db.session.add(provider)
    db.session.flush()
    audit.record(by, "provider.create", "provider", provider.id, name=name, after=provider.summary())
    mark_for_publication("directory")
    return provider


def update(
    item: Provider,
    *,
    by: Person | None,
    kind: str | Unset = UNSET,
    config: Mapping[str, Any] | Unset = UNSET,
    drop_moved: bool = False,
    **values: Any,
) -> Provider:
    """Change the given values, `ProviderFields` included. `config` replaces the public settings.

    A secret that is masked or missing keeps its stored value, and so does the name of its environment variable. If an
    address moves to another origin, secrets must be entered again, or are dropped with `drop_moved`. Raises `Invalid` naming
    the field.
    """
    before = item.summary()
    if kind is not UNSET and kind != item.kind:
        item.settings = _without(item.settings, adapter_settings.names_with(_adapter_settings(item.kind), "secret_env"))
        item.kind, item.sealed, item.hints = kind, None, {}
    _fill_provider(item, values, {**item.settings, **item.hints} if config is UNSET else config, drop_moved)
    item.updated_at = now()
    audit.record(by, "provider.update", "provider", item.id, name=item.name, before=before, after=item.summary())
    mark_for_publication("directory")
    return item


def switch(item: Provider, status: str, *, by: Person | None) -> Provider:
    """Enable or disable a provider. Its settings stay, even if its adapter no longer accepts them."""
    before = item.summary()
    _fill_fields(item, {"status": status})
    item.updated_at = now()
    audit.record(by, "provider.update", "provider", item.id, name=item.name, before=before, after=item.summary())
    mark_for_publication("directory")
    return item


def remove(item: Provider, *, by: Person | None) -> None:
    """Delete a provider without deployments (see `app.workflows.offboarding.withdraw`)."""
    for endpoint in db.session.scalars(select(Endpoint)):
        if item.id in endpoint.providers:
            endpoint.providers = [id for id in endpoint.providers if id != item.id]
    audit.record(by, "provider.delete", "provider", item.id, name=item.name, before=item.summary(), after={})
    db.session.delete(item)
    db.session.flush()
    mark_for_publication("directory")


def opened(item: Provider) -> Any:
    """The adapter's settings with secrets in plain text: for requests to the upstream, never to show or log.

    Raises `Invalid` if the adapter no longer accepts them.
    """
    return _checked(_adapter_settings(item.kind), {**item.settings, **_secrets_of(item)})


def connected(item: Provider, *, most_s: float | None = None) -> Adapter:
    """The provider's adapter, to be closed again; it waits at most `most_s` for each answer. Raises `Invalid` when the
    settings no longer satisfy it."""
    settings = opened(item)
    if most_s is not None:
        settings = msgspec.structs.replace(settings, timeout_s=min(settings.timeout_s, most_s))
    return adapters.adapter(item.kind)(settings, policy=_policy())


def check(
    item: Provider, *, model: str | None = None, prompt: str | None = None, parameters: dict[str, Any] | None = None
) -> CheckResult:
    """Send a test request to the upstream. Call it outside of a write transaction: it waits for the network."""
    adapter = connected(item)
    try:
        return adapter.check(model=model, prompt=prompt, parameters=parameters or {})
    finally:
        adapter.close()


def reports(item: Provider) -> tuple[ModelReport, ...]:
    """How the models of the provider's server fare. Call it outside of a write transaction. Raises `UpstreamError`."""
    adapter = adapters.adapter(item.kind)(opened(item), policy=_policy())
    try:
        return adapter.reports() or ()
    finally:
        adapter.close()


def recognise(item: Provider, model: str, settings: dict[str, Any]) -> Recognised | None:
    """What a model's tensors are recognised as, None for kinds without. Call it outside of a write transaction. Raises
    `UpstreamError`."""
    adapter = adapters.adapter(item.kind)(opened(item), policy=_policy())
    try:
        return adapter.recognise(model, settings)
    finally:
        adapter.close()


def must_be_deployable(item: Provider, settings: Mapping[str, Any], where: str) -> None:
    """Raises `Invalid` for a deployment's settings that the provider's adapter can't use."""
    declared = adapters.adapter(item.kind).DeploymentSettings if item.kind in adapters.kinds() else None
    if declared is None:
        return
    try:
        msgspec.convert(settings, declared)
    except msgspec.ValidationError as error:
        raise fields.refusal_of(error, where) from None


def _policy() -> AddressPolicy:
    return AddressPolicy.of(current.config())


def _adapter_settings(kind: str) -> type[adapter_settings.Settings]:
    try:
        return adapters.adapter(kind).Settings
    except adapters.UnknownKind as error:
        raise Invalid(f"{str(error)[:1].upper()}{str(error)[1:]}.", "provider") from None


def _checked(declared: type[adapter_settings.Settings], values: dict[str, Any]) -> Any:
    try:
        return adapter_settings.checked(declared, values, adapter_settings.Variables(current.config().upstream.env))
    except adapter_settings.SettingsError as error:
        raise Invalid(str(error), f"config.{error.field}" if error.field else "config") from None


def _fill_fields(item: Provider, values: Mapping[str, Any]) -> None:
    before = item.status
    fields.fill(ProviderFields, item, values)
    if item.status != before:
        item.status_at = now()


def _fill_provider(
    item: Provider, values: Mapping[str, Any], config: Mapping[str, Any], drop_moved: bool = False
) -> None:
    """Validate and set a provider's fields, and split its settings into public ones and encrypted ones."""
    _fill_fields(item, values)
    same_name = select(Provider.id).where(func.lower(Provider.name) == item.name.lower(), Provider.id != item.id)
    with db.session.no_autoflush:
        if db.session.scalar(same_name):
            raise Conflict(f"The name {item.name} is taken.", "name")
    declared = _adapter_settings(item.kind)
    secret, variable = (adapter_settings.names_with(declared, role) for role in ("secret", "secret_env"))
    instead = adapter_settings.other_forms(declared)
    stored = _secrets_of(item) | {name: item.settings[name] for name in variable if item.settings.get(name)}
    given = {name: config[name] for name in (*secret, *variable) if config.get(name) and not _is_mask(config[name])}
    taken_out = {name for name in variable if name in config and not config[name]}
    replaced = {*given, *taken_out, *(form for name in given for form in instead.get(name, ()))}
    kept = {name: value for name, value in stored.items() if name not in replaced}
    for name in variable:
        for form in instead[name]:
            if name in given and form in given:
                raise Invalid(f"Set either {form} or {name}, not both.", f"config.{name}")
    settings = {name: value for name, value in config.items() if name not in secret and value is not None}
    settings = _without(settings, variable) | {
        name: value for name, value in (kept | given).items() if name in variable
    }
    secrets = {name: value for name, value in (kept | given).items() if name in secret}
    _checked(declared, {**settings, **secrets})
    origins = adapter_settings.origins_of(declared, settings)
    _check_origins(origins)
    if kept and origins != adapter_settings.origins_of(declared, item.settings):
        if not drop_moved:
            raise Invalid("The address has changed. Enter this secret again.", f"config.{min(kept)}")
        settings = _without(settings, [name for name in kept if name in variable])
        secrets = {name: value for name, value in secrets.items() if name not in kept}
    item.settings = settings
    item.sealed = current.sealer().seal(msgspec.json.encode(secrets), place_of(item.id)) if secrets else None
    item.hints = {name: masked(value) for name, value in secrets.items()}


def _without(settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}


def _check_origins(origins: Mapping[str, Origin]) -> None:
    for name, origin in origins.items():
        try:
            _policy().check(origin.host, origin.port)
        except AddressRefused as refused:
            raise Invalid(f"{str(refused).capitalize()}.", f"config.{name}") from None


def _secrets_of(item: Provider) -> dict[str, str]:
    if not item.sealed:
        return {}
    found: dict[str, str] = msgspec.json.decode(current.sealer().open(item.sealed, place_of(item.id)))
    return found


def seal_anew(item: Provider) -> None:
    """Seal a provider's secrets with the active encryption key. Raises `SealingError` if no kept key opens them."""
    if item.sealed is not None:
        place = place_of(item.id)
        item.sealed = current.sealer().seal(current.sealer().open(item.sealed, place), place)


def masked(secret: Any) -> str:
    """A mask by which people recognise a secret; a short secret shows nothing."""
    text = str(secret)
    return MASK + text[-4:] if len(text) >= 16 else MASK


def _is_mask(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(MASK)


# --- endpoints ---


def endpoint(id: str) -> Endpoint:
    """The endpoint with this id. Raises `NotFound`."""
    endpoint = db.session.get(Endpoint, id) if id in ENDPOINTS else None
    if endpoint is None:
        raise NotFound("This endpoint does not exist.")
    return endpoint


def all_endpoints(*, status: str | None = None) -> Select[Endpoint]:
    """A query of the endpoints that this version serves, filtered by status ("active" or "inactive"). The database can
    contain others."""
    query = select(Endpoint).where(Endpoint.id.in_(ENDPOINTS)).order_by(Endpoint.path)
    return query.where(Endpoint.active.is_(status == "active")) if status else query


def ensure_endpoints() -> None:
    """Insert rows for endpoints of this version that the database lacks."""
    present = set(db.session.scalars(select(Endpoint.id)))
    for served in ENDPOINTS.values():
        if served.id not in present:
            db.session.add(Endpoint(id=served.id, path=served.path))
            mark_for_publication("directory")


def update_endpoint(
    item: Endpoint,
    *,
    by: Person | None,
    active: bool | Unset = UNSET,
    providers: Sequence[str] | Unset = UNSET,
) -> Endpoint:
    """Turn an endpoint on or off, or restrict its providers. Raises `Invalid` for an unknown provider."""
    before = item.summary()
    if active is not UNSET:
        item.active = active
    if providers is not UNSET:
        wanted = list(dict.fromkeys(providers))
        known = set(db.session.scalars(select(Provider.id).where(Provider.id.in_(wanted))))
        if set(wanted) - known:
            raise Invalid("This provider does not exist.", "mapping.providers")
        item.providers = wanted
    item.updated_at = now()
    audit.record(by, "endpoint.update", "endpoint", item.id, name=item.path, before=before, after=item.summary())
    mark_for_publication("directory")
    return item
