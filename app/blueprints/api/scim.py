"""SCIM 2.0 (RFC 7643, 7644): the part of it that Entra ID and Okta use to provision people and groups.

Its one client has a token of its own, which opens nothing else. Bodies, answers and errors have SCIM's shapes, not those of
the management API.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from flask import Blueprint, Response, abort, request
from sqlalchemy import Select, func, select
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from werkzeug.exceptions import HTTPException

from app import current
from app.blueprints.api.contract import ENCODER, convert, read
from app.domain import audit, identity, teams, throttles
from app.domain.errors import Conflict, DomainError, Invalid, NotFound
from app.domain.person import Person
from app.domain.teams import Membership, Team
from app.extensions import csrf, db, transaction
from app.web.formats import rfc3339
from app.web.links import origin
from app.workflows import provisioning, scim_language
from app.workflows.scim_language import ScimError

bp = Blueprint("scim", __name__, url_prefix="/scim/v2")
csrf.exempt(bp)  # nobody signs in with a browser here

T = TypeVar("T")
MEDIA_TYPE = "application/scim+json"
MOST = 200
USER, GROUP = "urn:ietf:params:scim:schemas:core:2.0:User", "urn:ietf:params:scim:schemas:core:2.0:Group"
CORE, API = "urn:ietf:params:scim:schemas:core:2.0", "urn:ietf:params:scim:api:messages:2.0"
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


@bp.before_request
def admit() -> Response | None:
    """Lets only the client with the token in. Without a token in the settings there is nothing here."""
    token = current.config().scim.token
    if token is None:
        return _refusal(404, "SCIM is off. Set scim.token.")
    throttles.count("scim", request.remote_addr or "", throttles.AN_ADDRESS)
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode()):
        return None
    identity.refuse_sign_in("scim", "no_token" if not given else "wrong_token")
    response = _refusal(401, "Send the token of scim.token: Authorization: Bearer <token>.")
    response.headers["WWW-Authenticate"] = 'Bearer realm="SCIM"'
    return response


# --- people ---


@bp.get("/Users")
def list_people() -> Response:
    query = select(Person)
    for name, value in _terms("userName", "externalId", "emails.value"):
        match name:
            case "userName":
                query = query.where(func.lower(Person.username) == value.lower())
            case "externalId":
                query = query.where(Person.external_id == value)
            case _:
                query = query.where(func.lower(Person.email) == value.lower())
    return _list(query.order_by(Person.id), _show_people)


@bp.post("/Users")
def create_person() -> Response:
    resource = _resource()
    person = _write(lambda: provisioning.create_person(resource))
    return _made(_show_people([person])[0])


@bp.get("/Users/<id>")
def show_person(id: str) -> Response:
    return _reply(_show_people([_person(id)])[0])


@bp.put("/Users/<id>")
def replace_person(id: str) -> Response:
    resource = _resource()
    person = _write(lambda: provisioning.change_person(_person(id), resource))
    return _reply(_show_people([person])[0])


@bp.patch("/Users/<id>")
def patch_person(id: str) -> Response:
    document = read(dict[str, Any])

    def work() -> Person:
        person = _person(id)
        return provisioning.change_person(person, scim_language.patch(_resource_of(person), document))

    return _reply(_show_people([_write(work)])[0])


@bp.delete("/Users/<id>")
def delete_person(id: str) -> Response:
    _write(lambda: provisioning.delete_person(_person(id)))
    return Response(status=204)


# --- groups ---


@bp.get("/Groups")
def list_teams() -> Response:
    query = select(Team)
    for name, value in _terms("displayName", "externalId", "members.value"):
        match name:
            case "displayName":
                query = query.where(func.lower(Team.name) == value.lower())
            case "externalId":
                query = query.where(Team.external_id == value)
            case _:
                query = query.where(Team.id.in_(select(Membership.team_id).where(Membership.person_id == value)))
    return _list(query.order_by(Team.id), _show_teams)


@bp.post("/Groups")
def create_team() -> Response:
    resource = _resource()
    team = _write(lambda: provisioning.create_team(resource))
    return _made(_show_teams([team])[0])


@bp.get("/Groups/<id>")
def show_team(id: str) -> Response:
    return _reply(_show_teams([_team(id)])[0])


@bp.put("/Groups/<id>")
def replace_team(id: str) -> Response:
    resource = {"members": [], **_resource()}
    team = _write(lambda: provisioning.change_team(_team(id), resource))
    return _reply(_show_teams([team])[0])


@bp.patch("/Groups/<id>")
def patch_team(id: str) -> Response:
    document = read(dict[str, Any])

    def work() -> Team:
        team = _team(id)
        members = [{"value": membership.person_id} for membership in team.members]
        present = {"displayName": team.name, "externalId": team.external_id, "members": members}
        return provisioning.change_team(team, scim_language.patch(present, document))

    return _reply(_show_teams([_write(work)])[0])


@bp.delete("/Groups/<id>")
def delete_team(id: str) -> Response:
    _write(lambda: provisioning.delete_team(_team(id)))
    return Response(status=204)


# --- what SCIM says of itself ---


@bp.get("/ServiceProviderConfig")
def service_provider_config() -> Response:
    no = {"supported": False}
    return _reply(
        {
            "schemas": [f"{CORE}:ServiceProviderConfig"],
            "patch": {"supported": True},
            "bulk": {**no, "maxOperations": 0, "maxPayloadSize": 0},
            "filter": {"supported": True, "maxResults": MOST},
            "changePassword": no,
            "sort": no,
            "etag": no,
            "authenticationSchemes": [
                {"type": "oauthbearertoken", "name": "Bearer token", "description": "The token of scim.token."}
            ],
            "meta": {"resourceType": "ServiceProviderConfig", "location": _place("ServiceProviderConfig")},
        }
    )


@bp.get("/ResourceTypes")
def resource_types() -> Response:
    types = [
        {
            "schemas": [f"{CORE}:ResourceType"],
            "id": name,
            "name": name,
            "endpoint": f"/{name}s",
            "schema": schema,
            "meta": {"resourceType": "ResourceType", "location": _place("ResourceTypes", name)},
        }
        for name, schema in (("User", USER), ("Group", GROUP))
    ]
    return _listed(types, len(types), 1)


@bp.get("/Schemas")
def schemas() -> Response:
    def attribute(name: str, type: str = "string", *, many: bool = False, required: bool = False) -> dict[str, Any]:
        return {
            "name": name,
            "type": type,
            "multiValued": many,
            "required": required,
            "mutability": "readOnly" if name == "groups" else "readWrite",
            "returned": "default",
            "uniqueness": "server" if required else "none",
        }

    user = [
        attribute("userName", required=True), attribute("externalId"), attribute("name", "complex"),
        attribute("displayName"), attribute("emails", "complex", many=True), attribute("active", "boolean"),
        attribute("groups", "complex", many=True),
    ]  # fmt: skip
    group = [
        attribute("displayName", required=True),
        attribute("externalId"),
        attribute("members", "complex", many=True),
    ]
    found = [
        {"schemas": [f"{CORE}:Schema"], "id": id, "name": name, "attributes": attributes,
         "meta": {"resourceType": "Schema", "location": _place("Schemas", id)}}
        for id, name, attributes in ((USER, "User", user), (GROUP, "Group", group))
    ]  # fmt: skip
    return _listed(found, len(found), 1)


@bp.route("/", defaults={"rest": ""}, methods=METHODS)
@bp.route("/<path:rest>", methods=METHODS)
def nothing(rest: str) -> Response:
    """Every other path."""
    return abort(404)


# --- shapes ---


def _show_people(people: list[Person]) -> list[dict[str, Any]]:
    joined = provisioning.groups_of(people)
    return [
        {
            "schemas": [USER],
            "id": person.id,
            **{name: value for name, value in _resource_of(person).items() if value is not None},
            "groups": [
                {"value": one.team_id, "display": one.team.name, "$ref": _place("Groups", one.team_id)}
                for one in joined.get(person.id, ())
            ],
            "meta": _meta("User", person),
        }
        for person in people
    ]


def _show_teams(found: list[Team]) -> list[dict[str, Any]]:
    shown: dict[str, dict[str, Any]] = {}
    for team in found:
        shown[team.id] = {"schemas": [GROUP], "id": team.id, "displayName": team.name, "meta": _meta("Group", team)}
        if team.external_id is not None:
            shown[team.id]["externalId"] = team.external_id
    if "members" not in request.args.get("excludedAttributes", "").split(","):
        for team in found:
            shown[team.id]["members"] = []
        for one in db.session.scalars(teams.members_of(*found)) if found else ():
            place = _place("Users", one.person_id)
            member = {"value": one.person_id, "display": one.person.username, "type": "User", "$ref": place}
            shown[one.team_id]["members"].append(member)
    return list(shown.values())


def _resource_of(person: Person) -> dict[str, Any]:
    """What SCIM can change of a person, as it stands."""
    told = person.scim or {}
    emails = told.get("emails") or ([{"value": person.email, "type": "work", "primary": True}] if person.email else [])
    return {
        "userName": person.username,
        "externalId": person.external_id,
        "name": told.get("name"),
        "displayName": told.get("displayName"),
        "emails": emails,
        "active": not person.disabled,
    }


def _meta(kind: str, row: Person | Team) -> dict[str, str]:
    at = rfc3339(row.created_at)
    return {"resourceType": kind, "created": at, "lastModified": at, "location": _place(f"{kind}s", row.id)}


def _place(*parts: str) -> str:
    return "/".join((f"{origin()}/scim/v2", *parts))


def _person(id: str) -> Person:
    person = identity.by_id(id) if "\0" not in id else None
    if person is None:
        raise NotFound("There is no user with this id.")
    return person


def _team(id: str) -> Team:
    team = db.session.get(Team, id) if "\0" not in id else None
    if team is None:
        raise NotFound("There is no group with this id.")
    return team


def _resource() -> dict[str, Any]:
    return scim_language.read(read(dict[str, Any]))


def _terms(*known: str) -> list[tuple[str, str]]:
    text = request.args.get("filter")
    found = scim_language.terms(text, known) if text is not None else []
    convert([value for _, value in found], list[str])  # refuses what no database takes
    return found


def _list(query: Select[T], show: Callable[[list[T]], list[dict[str, Any]]]) -> Response:
    start, many = max(1, _number("startIndex", 1)), max(0, min(MOST, _number("count", MOST)))
    total = db.session.scalar(select(func.count()).select_from(query.order_by(None).subquery())) or 0
    rows = list(db.session.scalars(query.offset(start - 1).limit(many))) if many else []
    return _listed(show(rows), total, start)


def _number(name: str, usual: int) -> int:
    text = request.args.get(name, "").strip()
    try:
        return max(-(10**9), min(10**9, int(text))) if text and len(text) < 20 else usual
    except ValueError:
        raise ScimError("invalidValue", f"{name} is a number.") from None


def _write(work: Callable[[], T]) -> T:
    with audit.acting(provisioning.ACTOR):
        return transaction(work)


def _listed(resources: list[dict[str, Any]], total: int, start: int) -> Response:
    return _reply(
        {
            "schemas": [f"{API}:ListResponse"],
            "totalResults": total,
            "startIndex": start,
            "itemsPerPage": len(resources),
            "Resources": resources,
        }
    )


def _made(resource: dict[str, Any]) -> Response:
    response = _reply(resource, 201)
    response.headers["Location"] = resource["meta"]["location"]
    return response


def _reply(document: Any, status: int = 200) -> Response:
    response = Response(ENCODER.encode(document), status, content_type=MEDIA_TYPE)
    response.headers["Cache-Control"] = "no-store"
    return response


class Refused(msgspec.Struct, kw_only=True, omit_defaults=True):
    """SCIM's own shape of an error; `status` is a text."""

    schemas: list[str]
    status: str
    detail: str
    scim_type: str | None = msgspec.field(default=None, name="scimType")


def _refusal(status: int, detail: str, kind: str | None = None) -> Response:
    return _reply(Refused(schemas=[f"{API}:Error"], status=str(status), detail=detail, scim_type=kind), status)


@bp.errorhandler(DomainError)
def _refused(error: DomainError) -> Response:
    match error:
        case ScimError():
            response = _refusal(400, error.message, error.kind)
        case Invalid():
            response = _refusal(400, error.message, "invalidValue")
        case Conflict():
            response = _refusal(409, error.message, "uniqueness" if error.field else None)
        case _ if error.code == "invalid_body":
            response = _refusal(400, error.message, "invalidSyntax")
        case _:
            response = _refusal(error.status, error.message)
    response.headers.update(error.headers)
    return response


@bp.errorhandler(HTTPException)
def _http(error: HTTPException) -> Response:
    return _refusal(error.code or 500, error.description or error.name)


@bp.errorhandler(IntegrityError)
def _taken(error: IntegrityError) -> Response:
    db.session.rollback()
    return _refusal(409, "This name or externalId is taken.", "uniqueness")


@bp.errorhandler(DataError)
def _unstorable(error: DataError) -> Response:
    db.session.rollback()
    return _refusal(400, "A value is too long to be stored.", "invalidValue")


@bp.errorhandler(OperationalError)
def _away(error: OperationalError) -> Response:
    db.session.rollback()
    response = _refusal(503, "The database does not answer at the moment. Try again.")
    response.headers["Retry-After"] = "5"
    return response
