"""Saved configurations: save, list, compare, export, import, activate."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from flask import Response
from msgspec import UNSET, Meta

from app.blueprints.api.contract import Body, Cursored, CursorPage, me, page, route, sent_members, with_fields
from app.domain import saved_configs
from app.domain.saved_configs import SavedConfig, SavedConfigFields
from app.extensions import transaction
from app.workflows import config_changes, config_document
from app.workflows.config_changes import MissingSecret, Outcome
from app.workflows.config_document import Change, Counts

Name = Annotated[str, Meta(max_length=200)]

if TYPE_CHECKING:
    NewBody = Body
    ChangeBody = Body
else:
    NewBody = with_fields(Body, SavedConfigFields, absent=UNSET, required=("name",))
    ChangeBody = with_fields(Body, SavedConfigFields, absent=UNSET)


class NewConfig(NewBody, kw_only=True):
    """Saves the present state under a name."""


class ConfigChange(ChangeBody, kw_only=True):
    """What you leave out stays unchanged."""


class Config(msgspec.Struct, kw_only=True):
    """A saved configuration. One of them is the default: the one that was activated last."""

    id: str
    name: str
    description: str
    is_default: bool
    created_at: datetime
    updated_at: datetime


class WholeConfig(Config, kw_only=True):
    """`config` is the saved configuration as it is exported."""

    config: dict[str, Any]


class ConfigPage(CursorPage, kw_only=True):
    data: list[Config]


class Query(Cursored, kw_only=True):
    search: str | None = None


class Import(Body, kw_only=True):
    """`config` is a document as it is exported. What it does not name stays, or with `prune` is deleted. `secrets` are those
    of its providers, by the provider's name and the setting's."""

    config: dict[str, Any]
    dry_run: bool = False
    prune: bool = False
    secrets: dict[Name, dict[Name, Annotated[str, Meta(max_length=10_000)]]] = {}


class Activation(msgspec.Struct, kw_only=True):
    """`previous_id` is the saved configuration of the state before."""

    id: str
    previous_id: str | None
    changes: list[Change]
    counts: Counts
    missing_secrets: list[MissingSecret]


class Comparison(msgspec.Struct, kw_only=True):
    """What activating `to` would change where the state is `from`: a saved configuration, or `current`."""

    start: str = msgspec.field(name="from")
    to: str
    changes: list[Change]
    counts: Counts


class ComparisonQuery(msgspec.Struct, kw_only=True):
    """`against` is the id of a saved configuration, or `current`."""

    against: str = "current"


def show(item: SavedConfig, kind: Any = Config, **more: Any) -> Any:
    return kind(**{name: getattr(item, name) for name in Config.__struct_fields__}, **more)


@route("GET", "/api/configs", scope="admin", query=Query, answer=ConfigPage)
def index(query: Query) -> dict[str, Any]:
    """Lists the saved configurations, newest first."""
    return page(saved_configs.search(query.search), show)


@route("POST", "/api/configs", scope="admin", answer=Config, status=201, body=NewConfig, writes=True)
def create(body: NewConfig) -> Config:
    """Saves the present state."""
    found: Config = show(config_changes.save(by=me(), **sent_members(body)))
    return found


@route("GET", "/api/configs/export", scope="admin", file="application/json")
def export() -> Response:
    """Returns the present state as a document: stable in its order and without secrets, for version control."""
    transaction(config_changes.record_export, None, by=me())
    return _file(config_document.present())


@route("POST", "/api/configs/import", scope="admin", answer=Outcome, body=Import, large=True)
def import_(body: Import) -> Outcome:
    """Brings the state to what a document says, all or nothing. A dry run tells what would change."""
    return config_changes.import_document(
        body.config, by=me(), dry_run=body.dry_run, prune=body.prune, secrets=body.secrets
    )


@route("GET", "/api/configs/<id>", scope="admin", answer=WholeConfig)
def detail(id: str) -> WholeConfig:
    """Returns one saved configuration."""
    item = saved_configs.get(id)
    found: WholeConfig = show(item, WholeConfig, config=item.document)
    return found


@route("PUT", "/api/configs/<id>", scope="admin", answer=WholeConfig, body=ConfigChange, writes=True)
def change(id: str, body: ConfigChange) -> WholeConfig:
    """Changes the name or the description."""
    item = saved_configs.update(saved_configs.get(id), by=me(), **sent_members(body))
    found: WholeConfig = show(item, WholeConfig, config=item.document)
    return found


@route("DELETE", "/api/configs/<id>", scope="admin", status=204, writes=True)
def remove(id: str) -> None:
    """Deletes a saved configuration. The default cannot be deleted."""
    saved_configs.remove(saved_configs.get(id), by=me())


@route("GET", "/api/configs/<id>/export", scope="admin", file="application/json")
def export_one(id: str) -> Response:
    """Returns a saved configuration as a document."""
    item = saved_configs.get(id)
    document = item.document
    transaction(config_changes.record_export, item, by=me())
    return _file(document)


@route("POST", "/api/configs/<id>/activate", scope="admin", answer=Activation, writes=True)
def activate(id: str) -> Activation:
    """Brings the state to a saved configuration, all or nothing, and makes it the default. What it does not hold is
    switched off, not deleted."""
    outcome = config_changes.activate(saved_configs.get(id), by=me())
    return Activation(
        id=id,
        previous_id=outcome.previous_id,
        changes=outcome.changes,
        counts=outcome.counts,
        missing_secrets=outcome.missing_secrets,
    )


@route("GET", "/api/configs/<id>/diff", scope="admin", query=ComparisonQuery, answer=Comparison)
def compare(id: str, query: ComparisonQuery) -> Comparison:
    """Returns what activating this saved configuration would change now, or where the state is another saved one."""
    against = None if query.against == "current" else saved_configs.get(query.against)
    changes = config_changes.effect_of(saved_configs.get(id), against)
    return Comparison(start=query.against, to=id, changes=changes, counts=config_document.counts(changes))


def _file(document: config_document.Document) -> Response:
    response = Response(config_document.text(document), mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
