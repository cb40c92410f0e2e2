"""How every route of the management API is declared, entered, read and answered: one decorator, one error shape.

A route names its scope, the Structs of its query, its body and its answer, and whether it writes; the decorator signs
the caller in (access token, or browser session with CSRF), checks the scope and the role behind it, decodes the query
and a bounded body, and runs a writing route as one unit of work. The declarations stay in `OPERATIONS`, from which
`openapi` describes the API: what is read and what is told to be read are the same Struct.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeVar

import msgspec
from flask import Blueprint, Response, g, request
from flask_login import current_user
from flask_wtf.csrf import CSRFError
from msgspec import Meta
from msgspec.inspect import (
    DateTimeType,
    Field,
    IntType,
    ListType,
    LiteralType,
    StrType,
    StructType,
    UnionType,
    type_info,
)
from sqlalchemy import Select
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from sqlalchemy.orm.exc import ObjectDeletedError, StaleDataError
from werkzeug.exceptions import HTTPException

from app.blueprints.api.versions import Version
from app.clock import LATEST
from app.domain import fields, tokens
from app.domain.errors import DomainError, Forbidden, Invalid, NotFound, Throttled, Unauthenticated
from app.domain.person import SCOPES_OF, Person
from app.extensions import csrf, db, transaction, transaction_if
from app.metering import money
from app.runtime.jsonbody import count_parts
from app.web import cursors
from app.web.formats import is_counted

log = logging.getLogger(__name__)

bp = Blueprint("api", __name__)
csrf.exempt(bp)  # a session's token is checked below; bearer tokens need none

P = ParamSpec("P")
T = TypeVar("T")
Row = TypeVar("Row")

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
TAKE_BODIES = ("POST", "PUT", "PATCH")
CONDITIONAL = ("PUT", "PATCH", "DELETE")  # what heeds `If-Match`
MOST_ROWS = 200
DEEPEST = 32
MOST_PARTS = 20_000  # values of a body
LONGEST_BODY = 1024 * 1024
LONGEST_QUESTION = 500
INT64 = 2**63
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
UNKNOWN = "Object contains unknown field `"  # how msgspec begins to tell of one
ENCODER = msgspec.json.Encoder(enc_hook=str)


class Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a route's body is made of, nested objects too: a member that it does not know is refused, so that a
    misspelt limit is never left out in silence."""


Word = Annotated[str, Meta(max_length=255)]  # the domain knows which


class Nothing(Body, kw_only=True):
    """The body of a route that takes none."""


def with_fields(
    base: type[msgspec.Struct],
    kind: fields.Fields,
    *,
    absent: Any = msgspec.NODEFAULT,
    but: Sequence[str] = (),
    required: Sequence[str] = (),
    nullable: Sequence[str] = (),
) -> Any:
    """`base` and then the fields that a noun declares in a Struct (see `app.domain.fields`), to be inherited. `absent`
    is what stands for one that a body leaves out; without it each must be there, as in an answer, and so must those
    that are `required`. Null stands for the usual value of those that are `nullable`."""
    members = []
    for field in fields.fields_of(kind):
        if field.name in but or (field.role and absent is msgspec.NODEFAULT):
            continue
        sort = _sort_of_member(field)
        if field.can_be_none or field.name in nullable:
            sort = sort | None
        default = msgspec.NODEFAULT if field.name in required else absent
        if default is msgspec.UNSET:
            sort = sort | msgspec.UnsetType
        told = Meta(title=field.title, description=field.help or None)
        members.append((field.name, Annotated[sort, told], default))
    return msgspec.defstruct(f"{base.__name__}With{kind.__name__}", members, bases=(base,), kw_only=True)


def _sort_of_member(field: fields.Field) -> Any:
    """What JSON a field is. What the domain refuses in words of its own is not bounded here."""
    if field.type == "boolean":
        return bool
    if field.is_number:
        return int if field.refusal else Annotated[int, Meta(ge=field.least, le=field.most)]
    if field.several:
        return list[Word]
    if field.type == "choice":
        return Word
    return str if field.refusal or field.most == fields.UNBOUNDED else Annotated[str, Meta(max_length=field.most)]


def given(body: msgspec.Struct, *but: str) -> dict[str, Any]:
    """The members that a body bears, as the domain's verbs take them."""
    members = {name: getattr(body, name) for name in body.__struct_fields__ if name not in but}
    return {name: value for name, value in members.items() if value is not msgspec.UNSET}


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls the API and what they may do here; `token` is None for a browser."""

    person: Person
    scopes: tuple[str, ...]
    token: tokens.AccessToken | None = None
    session: str | None = None  # the digest of a browser's session


class Paged(msgspec.Struct, kw_only=True):
    """The query of every list; one that narrows its list adds its filters."""

    page: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    limit: Annotated[int, Meta(ge=1, le=MOST_ROWS)] = 50


# One bears the name that its list has come to.
Cursor = Annotated[str, Meta(max_length=1_500)]


class Cursored(Paged, kw_only=True):
    """`cursor` instead of `page` leads on from an answer, to the end of any list."""

    cursor: Cursor | None = None


class Page(msgspec.Struct, kw_only=True):
    """What answers of lists tell beside `data`. `total` is null above 10,000."""

    page: int
    limit: int
    total: int | None


class CursorPage(Page, kw_only=True):
    """`next_cursor` leads to what follows, null at the end. Pages alone reach the first 10,000."""

    next_cursor: str | None = None


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What a route declares about itself. `also` are statuses of success beside `status`; `form`: the body may be one."""

    rule: str
    method: str
    noun: str
    name: str
    scope: str | None
    query: type[msgspec.Struct] | None
    body: type[msgspec.Struct] | None
    form: bool
    answer: Any
    status: int
    also: tuple[int, ...]
    throttled: bool
    text: str


OPERATIONS: list[Operation] = []
_SHOWN: dict[str, Callable[..., Any]] = {}  # what GET tells of one object, by the route's rule
VERSIONS: dict[str, Version] = {}  # how that becomes an ETag, where PUT or PATCH may change it


class Fault(msgspec.Struct, kw_only=True):
    """Why a request was refused: a name for programs, a sentence for people, and the field at fault."""

    code: str
    message: str
    field: str | None = None


class Refusal(msgspec.Struct, kw_only=True):
    """The body of every answer of 400 and above."""

    error: Fault


def route(
    method: str,
    rule: str,
    *,
    scope: str | None = "portal",
    query: type[msgspec.Struct] | None = None,
    body: type[Body] | None = None,
    form: bool = False,
    answer: Any = None,
    status: int = 200,
    also: tuple[int, ...] = (),
    writes: bool = False,
    throttled: bool = False,
    versioned_by: tuple[str, ...] = (),
) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
    """Declares a route. Its function receives the path's parameters, with `query` what is `asked` by it, and with
    `body` the decoded `body`.

    It returns a Struct, a dictionary, None (for 204), or a pair with a status of `also`. The scope `admin` asks for a
    role too: admin, or admin-readonly for reading; `any` takes every valid token; None lets everybody in. A
    function that `writes` may run twice, so it calls nothing but verbs of the domain. An answer that is a page of a
    list takes the query of one without being told. A `throttled` route counts failed attempts.

    Members that a body does not know are refused. PUT takes an object as GET tells it: what its answer tells beyond
    the body cannot be set and is left alone.

    GET of what PUT or PATCH of the same rule may change bears an `ETag`, made of the members that their body takes and
    those that `versioned_by` names (see `versions`). A route that writes heeds `If-Match`; one that begins its unit of
    work itself does so by `unit`.
    """

    def declare(function: Callable[P, Any]) -> Callable[P, Any]:
        module = function.__module__.rpartition(".")[2]
        reading = query or (Cursored if isinstance(answer, type) and issubclass(answer, CursorPage) else None)
        questions = None if reading is None else _questions(reading)
        if body is not None:
            _must_forbid_unknown(body)
        if method == "GET":
            _SHOWN[rule] = function
        elif method in ("PUT", "PATCH") and body is not None:
            VERSIONS[rule] = Version(body, versioned_by)
        told_only = _told_only(body, answer) if method == "PUT" and body is not None else frozenset()
        OPERATIONS.append(
            Operation(
                rule=rule,
                method=method,
                noun=module,
                name=f"{module}_{function.__name__}",
                scope=scope,
                query=reading,
                body=body,
                form=form,
                answer=answer,
                status=status,
                also=also,
                throttled=throttled,
                text=inspect.getdoc(function) or function.__name__.replace("_", " "),
            )
        )

        @wraps(function)
        def view(*args: P.args, **kwargs: P.kwargs) -> Response:
            if scope is not None:
                g.caller = _enter()
                _must_hold(g.caller, scope)
            if any("\0" in str(value) for value in kwargs.values()):
                raise NotFound("There is no such thing.")
            if reading is not None and questions is not None:
                g.asked = _ask(reading, questions)
                if query is not None:
                    kwargs["asked"] = g.asked
            if body is not None:
                kwargs["body"] = _form(body) if form and not request.is_json else read(body, told_only)
            elif method in TAKE_BODIES and request.is_json:
                read(Nothing)
            g.unchanged = None
            if method in CONDITIONAL and "If-Match" in request.headers:
                place = {name: value for name, value in kwargs.items() if name not in ("asked", "body")}
                g.unchanged = lambda: _must_match(rule, place)
            result = unit(function, *args, **kwargs) if writes else function(*args, **kwargs)
            response = reply(result, status)
            if rule in VERSIONS and result is not None and not isinstance(result, Response):
                response.set_etag(VERSIONS[rule].of(result))
            return response

        bp.add_url_rule(rule, f"{module}_{function.__name__}", view, methods=[method])
        return view

    return declare


def unit(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs `work` as one unit of work, if what the request's `If-Match` names is still so."""
    unchanged: Callable[[], None] | None = g.unchanged
    return transaction_if(unchanged, work, *args, **kwargs) if unchanged else transaction(work, *args, **kwargs)


def _must_match(rule: str, place: dict[str, Any]) -> None:
    """Raises `Stale` unless the object is still as a tag of `If-Match` says; `NotFound` when it is gone."""
    told = _SHOWN[rule](**place) if rule in _SHOWN else None
    tags = request.if_match
    if not tags.star_tag and (rule not in VERSIONS or VERSIONS[rule].of(told) not in tags):
        raise Stale("Somebody else has changed this since you read it. Read it again, then send your change again.")


def caller() -> Caller:
    """Who made this request."""
    found: Caller = g.caller
    return found


def me() -> Person:
    """The person behind this request."""
    return caller().person


def _enter() -> Caller:
    """Signs the request in: by its access token if it bears one, else by the browser's session."""
    header = request.headers.get("Authorization")
    if header is not None:
        scheme, _, text = header.partition(" ")
        bearer = tokens.verify(text.strip()) if scheme.lower() == "bearer" else None
        if bearer is None:
            raise Unauthenticated("The access token is not valid. Get a new one at POST /token.")
        return Caller(person=bearer.person, scopes=bearer.scopes, token=bearer.token)
    if not current_user.is_authenticated:
        raise Unauthenticated("Send an access token: Authorization: Bearer <token from POST /token>.")
    person: Person = current_user._get_current_object()
    if request.method not in SAFE_METHODS:
        csrf.protect()
    return Caller(person=person, scopes=SCOPES_OF[person.role], session=g.browser_session.digest)


def _must_hold(caller: Caller, scope: str) -> None:
    person = caller.person
    if scope == "admin":
        if not person.sees_everything:
            raise Forbidden("This needs the role admin.")
        if request.method not in SAFE_METHODS and not person.is_admin:
            raise Forbidden("This needs the role admin; admin-readonly may only read.")
    if scope != "any" and scope not in caller.scopes:
        raise Forbidden(f"This needs an access token with the scope {scope}.")


# --- reading ---


def read(kind: type[T], told_only: frozenset[str] = frozenset()) -> T:
    """The request's JSON body as `kind`, without the members `told_only`. An empty body is an empty object. Raises
    `Malformed` or `Invalid`."""
    data = request.get_data(cache=False)
    if len(data) > LONGEST_BODY:
        raise TooLarge(f"The body may have at most {LONGEST_BODY} bytes.")
    parts = count_parts(data, 4 * MOST_PARTS)
    if parts is None or parts.values > MOST_PARTS:
        raise TooLarge(f"The body may have at most {MOST_PARTS:,} values.")
    try:
        document = msgspec.json.decode(data) if data.strip() else {}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Malformed("The body is not JSON.") from None
    if not isinstance(document, dict):
        raise Malformed("The body must be a JSON object.")
    return convert({name: value for name, value in document.items() if name not in told_only}, kind)


def _form(kind: type[T]) -> T:
    """The request's form as `kind`. What it does not know is left out: so OAuth 2 has it, whose clients send more."""
    known = {field.encode_name for field in msgspec.structs.fields(kind)}  # type: ignore[arg-type]
    return convert({name: value for name, value in request.form.items() if name in known}, kind)


def convert(document: Any, kind: type[T], *, strict: bool = True) -> T:
    """Checked values as `kind`; raises `Invalid` with the path of the field at fault."""
    _must_be_storable(document)
    try:
        return msgspec.convert(document, kind, strict=strict)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        field = path.rstrip("`").lstrip(".") or None
        if "missing required field" in message and "`" in message:
            name = message.split("`")[1]
            field = f"{field}.{name}" if field else name
        elif message.startswith(UNKNOWN):
            name = message.removeprefix(UNKNOWN).rstrip("`")
            field = f"{field}.{name}" if field else name
            message = f"There is no member {name[:100]!r} here"
        raise Invalid(f"{message}.", field) from None


def _must_be_storable(value: Any, path: str = "", depth: int = 0) -> None:
    """Refuses what no database or JSON reader takes: NUL characters, integers beyond 64 bits, endless nesting."""
    if depth > DEEPEST:
        raise Invalid(f"Nested deeper than {DEEPEST} levels.", path.split(".")[0] or None)
    if isinstance(value, str):
        if "\0" in value:
            raise Invalid("NUL characters are not allowed.", path or None)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if "\0" in key:
                raise Invalid("NUL characters are not allowed.", path or None)
            _must_be_storable(inner, f"{path}.{key}" if path else key, depth + 1)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            _must_be_storable(inner, f"{path}[{position}]", depth + 1)
    elif isinstance(value, int) and not -INT64 <= value < INT64:
        raise Invalid("Integers may have at most 64 bits.", path or None)


def _must_forbid_unknown(kind: type[msgspec.Struct]) -> None:
    """Raises `TypeError` for a body with an object, at any depth, that would swallow members."""
    found = _structs_in(type_info(kind))
    swallowing = [one.__name__ for one in found if not one.__struct_config__.forbid_unknown_fields]
    if swallowing:
        raise TypeError(f"make a Body of {', '.join(swallowing)}: members that it does not know would be swallowed")


def _structs_in(found: Any) -> Iterator[type[msgspec.Struct]]:
    """The Structs that a described type is made of."""
    if isinstance(found, StructType):
        yield found.cls
        for field in found.fields:
            yield from _structs_in(field.type)
    elif isinstance(found, UnionType):
        for one in found.types:
            yield from _structs_in(one)
    elif isinstance(found, ListType):
        yield from _structs_in(found.item_type)


def _told_only(body: type[msgspec.Struct], answer: Any) -> frozenset[str]:
    """The members that an answer tells and a body does not take."""
    if not (isinstance(answer, type) and issubclass(answer, msgspec.Struct)):
        return frozenset()
    told, taken = ({field.encode_name for field in msgspec.structs.fields(kind)} for kind in (answer, body))
    return frozenset(told - taken)


class _Question(msgspec.Struct, frozen=True):
    """One parameter that a query may bear: its attribute, its name in the address, and what it has to be."""

    attribute: str
    name: str
    kind: Any


def _questions(kind: type[msgspec.Struct]) -> tuple[_Question, ...]:
    """What `kind` asks for: texts, whole numbers, instants and choices, each of them optional."""
    described = type_info(kind)
    assert isinstance(described, StructType)
    return tuple(_Question(field.name, field.encode_name, _sort_of(field)) for field in described.fields)


def _sort_of(field: Field) -> Any:
    sorts = field.type.types if isinstance(field.type, UnionType) else (field.type,)
    found = next((sort for sort in sorts if isinstance(sort, IntType | StrType | DateTimeType | LiteralType)), None)
    bounded = not isinstance(found, IntType) or None not in (found.ge, found.le)
    if found is None or field.required or not bounded:
        raise TypeError(f"a query cannot ask for {field.name}: {field.type}")
    return found


def _ask(kind: type[T], questions: Sequence[_Question]) -> T:
    """The request's query as `kind`; what is empty counts as absent. Raises `Invalid`."""
    given = {}
    for question in questions:
        value = request.args.get(question.name)
        if value:
            given[question.attribute] = _answered(value, question.name, question.kind)
    return kind(**given)


def _answered(value: str, name: str, sort: Any) -> Any:
    if "\0" in value or len(value) > (getattr(sort, "max_length", None) or LONGEST_QUESTION):
        raise Invalid("This value cannot be used.", name)
    match sort:
        case LiteralType(values=choices) if value not in choices:
            raise Invalid(f"Choose one of {', '.join(map(str, choices))}.", name)
        case DateTimeType():
            return _instant(value, name)
        case IntType(ge=int(least), le=int(most)):
            if not value.isascii() or not value.isdigit() or len(value) > 12 or not least <= int(value) <= most:
                raise Invalid(f"Give a number from {least} to {most}.", name)
            return int(value)
        case _:
            return value


def _instant(value: str, name: str) -> datetime:
    """An RFC 3339 instant; a date alone is its first instant in UTC. One before 1970 or after 2999 is taken for these."""
    try:
        moment = datetime.fromisoformat(value.upper())
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return min(max(moment, EARLIEST), LATEST).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Invalid("Give a time such as 2026-11-21T08:00:00Z.", name) from None


# --- answering ---


def page(rows: Select[Row], show: Callable[[Row], Any]) -> dict[str, Any]:
    """One page of a list, as the query asks: `page` from 1, or what follows a `cursor`; `limit` up to 200."""
    asked = g.asked
    try:
        found = cursors.page_of(rows, asked.page, asked.limit, asked.cursor)
    except cursors.InvalidCursor:
        raise Invalid("Give the `next_cursor` of an answer.", "cursor") from None
    within_reach(found.total, found.items)
    return {
        "data": [show(row) for row in found.items],
        "page": asked.page,
        "limit": asked.limit,
        "total": found.total if is_counted(found.total) else None,
        "next_cursor": found.next,
    }


def within_reach(total: int | None, items: Sequence[Any]) -> None:
    """Refuses a page that lies farther in a long list than pages reach: its rows are there, and would be missed."""
    if not items and not g.asked.cursor and (total is None or not is_counted(total)):
        raise Invalid(
            "Pages reach the first 10,000 of a list: go on from there with `cursor`, an answer's `next_cursor`.", "page"
        )


def listed(rows: Sequence[Any]) -> dict[str, Any]:
    """A list that is whole already, cut to the page the query asks for."""
    number, limit = g.asked.page, g.asked.limit
    start = (number - 1) * limit
    return {"data": list(rows[start : start + limit]), "page": number, "limit": limit, "total": len(rows)}


def amount(nano: int | None) -> str | None:
    """Money as the API tells it."""
    return money.optional_text(nano)


def reply(result: Any, status: int = 200) -> Response:
    """A JSON answer; None is 204 without a body."""
    if isinstance(result, Response):
        return result
    if isinstance(result, tuple):
        result, status = result
    if result is None:
        response = Response(status=204)
    else:
        response = Response(ENCODER.encode(result), status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response


class Malformed(DomainError):
    """A body that cannot be read at all."""

    code = "invalid_body"


class Stale(DomainError):
    """What is to be changed is no longer as the request's `If-Match` says."""

    status = 412
    code = "precondition_failed"


class TooLarge(DomainError):
    status = 413
    code = "body_too_large"


def refuse(status: int, code: str, message: str, field: str | None = None) -> Response:
    """An answer in the one error shape."""
    response = reply(Refusal(error=Fault(code=code, message=message, field=field)), status)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="Portico"'
    return response


def refuse_http(error: HTTPException) -> Response:
    """Flask's own refusals (no such path, wrong method, body too large) in the one error shape."""
    name = error.name.lower().replace(" ", "_")
    response = refuse(error.code or 500, name, error.description or error.name)
    allowed = getattr(error, "valid_methods", None)
    if allowed:
        response.headers["Allow"] = ", ".join(allowed)
    return response


@bp.errorhandler(DomainError)
def _refused(error: DomainError) -> Response:
    response = refuse(error.status, error.code, error.message, error.field)
    if isinstance(error, Throttled):
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


@bp.errorhandler(CSRFError)
def _forged(error: CSRFError) -> Response:
    return refuse(403, "csrf", "Send the session's CSRF token in the header X-CSRFToken.")


@bp.errorhandler(HTTPException)
def _http(error: HTTPException) -> Response:
    return refuse_http(error)


@bp.errorhandler(IntegrityError)
@bp.errorhandler(StaleDataError)
def _conflict(error: Exception) -> Response:
    db.session.rollback()
    return refuse(409, "conflict", "Somebody else changed this at the same moment. Look again and retry.")


@bp.errorhandler(ObjectDeletedError)
def _gone(error: ObjectDeletedError) -> Response:
    db.session.rollback()
    return refuse(404, "not_found", "There is no such thing any more.")


@bp.errorhandler(DataError)
def _unstorable(error: DataError) -> Response:
    db.session.rollback()
    return refuse(422, "invalid_field", "A value is too long or too large to be kept.")


@bp.errorhandler(OperationalError)
def _away(error: OperationalError) -> Response:
    db.session.rollback()
    log.warning("the database did not answer: %s", type(error.orig).__name__)
    response = refuse(503, "unavailable", "The database does not answer at the moment. Try again.")
    response.headers["Retry-After"] = "5"
    return response
