"""Providers, models, endpoints and routing as one document: how it is written, read and compared.

It has no ids, times, counters or secrets, and one state is always written in the same bytes, so that it can be kept under
version control. Everything in it goes by its name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import select

from app import current
from app.domain import catalog, fields, providers
from app.domain.catalog import Model, ModelFields
from app.domain.errors import Invalid
from app.domain.providers import Endpoint, Provider, ProviderFields
from app.extensions import db
from app.metering.quantities import PRICES

FORMAT = 1
SECTIONS = ("providers", "models", "endpoints", "routing")
NAMED_BY = {"providers": "name", "models": "name", "endpoints": "path"}
KIND_OF = {"providers": "provider", "models": "model", "endpoints": "endpoint", "routing": "routing"}
# How an embedder's instructions are called in a document, and the fields of the model that hold them.
INSTRUCTIONS = {"query": "query_instruction", "passage": "passage_instruction"}
MOST_OBJECTS = 5_000  # providers, and models, of a document

Document = dict[str, Any]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Act = Literal["create", "update", "delete"]


class _Entry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A part of a document. A member that is left out keeps its value, or has its default in something new."""


def _with_fields(kind: fields.Fields) -> Any:
    """An entry with the fields that a noun declares, each of which may be left out but for the name."""
    hints = get_type_hints(kind, include_extras=True)
    members: list[Any] = [
        (name, hint if name == "name" else hint | UnsetType, *(() if name == "name" else (UNSET,)))
        for name, hint in hints.items()
    ]
    return msgspec.defstruct(f"{kind.__name__}Entry", members, bases=(_Entry,), kw_only=True)


if TYPE_CHECKING:
    _ProviderEntry = _Entry
    _ModelEntry = _Entry
    Rates = _Entry
else:
    _ProviderEntry, _ModelEntry = _with_fields(ProviderFields), _with_fields(ModelFields)
    Amount = Annotated[str, Meta(max_length=40)] | int | None
    Rates = msgspec.defstruct("Rates", [(name, Amount, None) for name in PRICES], bases=(_Entry,), kw_only=True)


class LongContext(Rates, kw_only=True):
    above_prompt_tokens: int


class PriceEntry(Rates, kw_only=True):
    """A whole price: amounts that are left out are not priced."""

    tiers: dict[str, Rates] | None = None
    long_context: LongContext | None = None


class ProviderEntry(_ProviderEntry, kw_only=True):
    """`provider` is the kind of adapter, `secrets` the names of the settings that it needs and that are not told."""

    if TYPE_CHECKING:
        name: str
    provider: Annotated[str, Meta(max_length=32)] | UnsetType = UNSET
    config: dict[str, Any] | UnsetType = UNSET
    secrets: list[Name] = []


class DeploymentEntry(_Entry, kw_only=True):
    provider: Name
    upstream_model: Name
    priority: int = 0
    weight: int = 1
    settings: dict[str, Any] = {}


class Instructions(_Entry, kw_only=True):
    query: str | None = None
    passage: str | None = None


class ModelEntry(_ModelEntry, kw_only=True):
    if TYPE_CHECKING:
        name: str
    price: PriceEntry | None | UnsetType = UNSET
    deployments: list[DeploymentEntry] | UnsetType = UNSET
    embedding_instructions: Instructions | None | UnsetType = UNSET


class EndpointMapping(_Entry, kw_only=True):
    providers: list[Name] = []


class EndpointEntry(_Entry, kw_only=True):
    path: Name
    active: bool | UnsetType = UNSET
    mapping: EndpointMapping | UnsetType = UNSET


class Routing(_Entry, kw_only=True):
    default_model: Name | None | UnsetType = UNSET


class Wanted(_Entry, kw_only=True):
    """A document that was read. A section that is left out is not touched."""

    portico: Literal[1]
    providers: Annotated[list[ProviderEntry], Meta(max_length=MOST_OBJECTS)] | UnsetType = UNSET
    models: Annotated[list[ModelEntry], Meta(max_length=MOST_OBJECTS)] | UnsetType = UNSET
    endpoints: Annotated[list[EndpointEntry], Meta(max_length=MOST_OBJECTS)] | UnsetType = UNSET
    routing: Routing | UnsetType = UNSET


class ChangedField(msgspec.Struct, frozen=True, kw_only=True):
    """One value that differs, by its path within the object."""

    path: str
    before: Any
    after: Any


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What differs of one object."""

    kind: Literal["provider", "model", "endpoint", "routing"]
    name: str
    act: Act
    fields: list[ChangedField]


class Counts(msgspec.Struct, kw_only=True):
    create: int = 0
    update: int = 0
    delete: int = 0


def present() -> Document:
    """The document of the present state."""
    every = list(db.session.scalars(select(Provider).order_by(Provider.name)))
    names = {item.id: item.name for item in every}
    return _document(
        providers=[_provider(item) for item in every],
        models=[_model(item) for item in db.session.scalars(select(Model).order_by(Model.name))],
        endpoints=[_endpoint(item, names) for item in db.session.scalars(providers.all_endpoints())],
        routing={"default_model": current.config().gateway.default_model},
    )


def _document(**sections: Any) -> Document:
    """The sections in their order, lists by name and members by the alphabet, however the database sorts."""
    for section, name in NAMED_BY.items():
        sections[section] = sorted(sections[section], key=itemgetter(name))
    return {"portico": FORMAT} | {section: _in_order(sections[section]) for section in SECTIONS}


def _in_order(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _in_order(value[name]) for name in sorted(value)}
    return [_in_order(one) for one in value] if isinstance(value, list) else value


def _provider(item: Provider) -> dict[str, Any]:
    told = fields.told(ProviderFields, item)
    return told | {"provider": item.kind, "config": dict(item.settings), "secrets": sorted(item.hints)}


def _model(item: Model) -> dict[str, Any]:
    told = fields.told(ModelFields, item)
    instructions = {name: told.pop(field) for name, field in INSTRUCTIONS.items()}
    deployments = [
        {
            "provider": one.provider.name,
            "upstream_model": one.upstream_model,
            "priority": one.priority,
            "weight": one.weight,
            "settings": one.settings,
        }
        for one in item.deployments
    ]
    return told | {
        "embedding_instructions": {name: text or None for name, text in instructions.items()},
        "price": _given(item.price.decimals()) if item.price else None,
        "deployments": sorted(deployments, key=lambda one: (one["priority"], one["provider"], one["upstream_model"])),
    }


def _given(price: Mapping[str, Any]) -> dict[str, Any]:
    """A price without the members that it leaves out."""
    found = {name: _given(value) if isinstance(value, Mapping) else value for name, value in price.items()}
    return {name: value for name, value in found.items() if value not in (None, {})}


def _endpoint(item: Endpoint, names: Mapping[str, str]) -> dict[str, Any]:
    allowed = sorted(names[id] for id in item.providers if id in names)
    return {"path": item.path, "active": item.active, "mapping": {"providers": allowed}}


def text(document: Document) -> str:
    """The document as it is exported."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def read(document: Any) -> Wanted:
    """Checks a document's form. Raises `Invalid` naming the member, such as `config.models[0].price`."""
    try:
        wanted = msgspec.convert(document, Wanted)
    except msgspec.ValidationError as error:
        raise fields.refusal_of(error, "config") from None
    for section, name in NAMED_BY.items():
        _must_be_named_once(getattr(wanted, section) or (), section, name)
    return wanted


def _must_be_named_once(entries: Iterable[Any], section: str, name: str) -> None:
    seen: set[str] = set()
    for position, entry in enumerate(entries):
        key = getattr(entry, name).casefold() if section == "providers" else getattr(entry, name)
        if key in seen:
            raise Invalid(f"{getattr(entry, name)} is listed twice.", f"config.{section}[{position}].{name}")
        seen.add(key)


def named_values(entry: msgspec.Struct, *without: str) -> dict[str, Any]:
    """The members that an entry names."""
    values = {name: getattr(entry, name) for name in entry.__struct_fields__ if name not in without}
    return {name: value for name, value in values.items() if value is not UNSET}


def switched_off(document: Document, target: Document) -> Document:
    """What activating `target` leaves where the state is `document`: what it does not hold is switched off, not deleted."""
    off = {"providers": {"status": "disabled"}, "models": {"status": "disabled"}, "endpoints": {"active": False}}
    sections = dict(target)
    for section, name in NAMED_BY.items():
        held = {entry[name] for entry in target[section]}
        sections[section] = target[section] + [
            entry | off[section] for entry in document[section] if entry[name] not in held
        ]
    del sections["portico"]
    return _document(**sections)


def differences(before: Document, after: Document) -> list[Change]:
    """What differs between two documents, in their order."""
    found: list[Change] = []
    for section, name in NAMED_BY.items():
        old, new = ({entry[name]: entry for entry in document[section]} for document in (before, after))
        for key in sorted(old.keys() | new.keys()):
            found += _difference(KIND_OF[section], key, old.get(key), new.get(key))
    return found + _difference("routing", "routing", before["routing"], after["routing"])


def counts(changes: Iterable[Change]) -> Counts:
    found = Counts()
    for change in changes:
        setattr(found, change.act, getattr(found, change.act) + 1)
    return found


def _difference(kind: Any, name: str, old: Document | None, new: Document | None) -> list[Change]:
    if old == new:
        return []
    act: Act = "create" if old is None else "delete" if new is None else "update"
    before, after = _flat(old or {}), _flat(new or {})
    changed = [
        ChangedField(path=path, before=before.get(path), after=after.get(path))
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]
    return [Change(kind=kind, name=name, act=act, fields=changed)]


def _flat(value: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """The values within an object by their paths. A deployment is known by its provider and the provider's model."""
    found: dict[str, Any] = {}
    for name, inner in value.items():
        path = f"{start}{name}"
        if isinstance(inner, Mapping) and inner:
            found |= _flat(inner, f"{path}.")
        elif name == "deployments" and not start:
            for one in inner:
                rest = {key: part for key, part in one.items() if key not in ("provider", "upstream_model")}
                found |= _flat(rest, f"{path}[{one['provider']}/{one['upstream_model']}].")
        else:
            found[path] = inner
    return found


def model_values(entry: ModelEntry) -> dict[str, Any]:
    """What an entry names of a model, as the catalogue's verbs take it, but for its deployments."""
    values = named_values(entry, "name", "price", "deployments", "embedding_instructions")
    if entry.price is not UNSET:
        values["price"] = _price(entry.price) if entry.price else None
    if entry.embedding_instructions is not UNSET:
        for name, field in INSTRUCTIONS.items():
            given = getattr(entry.embedding_instructions, name, None) or ""
            values[field] = catalog.read_instruction(given, f"embedding_instructions.{name}")
    return values


def _price(entry: PriceEntry) -> dict[str, Any]:
    tiers, long = entry.tiers or {}, entry.long_context
    return _rates(entry) | {
        "tiers": {tier: _rates(rates) for tier, rates in tiers.items()},
        "long_context": long and {"above_prompt_tokens": long.above_prompt_tokens} | _rates(long),
    }


def _rates(entry: Rates) -> dict[str, str | None]:
    return {name: None if (amount := getattr(entry, name)) is None else str(amount) for name in PRICES}
