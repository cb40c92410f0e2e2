"""How each route of the management API is declared, authorised, read and answered: one decorator, one shape of errors.

A route names its scope, the Structs of its query, body and answer, and whether it writes. The decorator authenticates
the caller (access token, or browser session with a CSRF token), checks the scope and the role behind it, decodes the
query and a bounded body, and runs a writing route as one unit of work. The declarations are kept in `OPERATIONS`, from
which `openapi` describes the API, so the description and the code use the same Structs.
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
from app.domain import fields, throttles, tokens
from app.domain.errors import DomainError, Forbidden, Invalid, NotFound, Unauthenticated
from app.domain.person import SCOPES_OF, Person, covered
from app.extensions import csrf, db, transaction, transaction_if
from app.metering import money
from app.runtime.jsonbody import count_parts
from app.web import cursors, policies
from app.web.formats import is_counted
from app.web.policies import Policy

log = logging.getLogger(__name__)

bp = Blueprint("api", __name__)
csrf.exempt(bp)  # checked below for sessions; bearer tokens need none

P = ParamSpec("P")
T = TypeVar("T")
Row = TypeVar("Row")

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
TAKE_BODIES = ("POST", "PUT", "PATCH")
CONDITIONAL = ("PUT", "PATCH", "DELETE")  # the methods that respect `If-Match`
MOST_ROWS = 200
DEEPEST = 32
MOST_PARTS = 20_000  # values of a body
LONGEST_BODY = 1024 * 1024
LARGE_PARTS, LARGE_BODY = 400_000, 4 * 1024 * 1024  # of a body that holds a whole configuration
LONGEST_PARAMETER = 500
INT64 = 2**63
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
ENCODER = msgspec.json.Encoder(enc_hook=str)


class Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The base of bodies and of the objects in them. It refuses members that it does not know, so a misspelt limit is
    never ignored silently."""


Word = Annotated[str, Meta(max_length=255)]  # the domain checks which words it knows


class Nothing(Body, kw_only=True):
    """The body of a route that takes no body."""


def with_fields(
    base: type[msgspec.Struct],
    kind: fields.Fields,
    *,
    absent: Any = msgspec.NODEFAULT,
    without: Sequence[str] = (),
    required: Sequence[str] = (),
    nullable: Sequence[str] = (),
) -> Any:
    """Returns `base` plus the fields that a noun declares in a Struct (see `app.domain.fields`), as a class to inherit
    from.

    `absent` is the default for a field that a body leaves out. Without it, every field is required, as in an answer;
    `required` fields always are. `nullable` fields accept null for their usual value. `without` leaves fields out.
    """
    members = []
    for field in fields.fields_of(kind):
        if field.name in without or (field.role and absent is msgspec.NODEFAULT):
            continue
        kind_of_member: Any = _type_of_member(field)
        if field.can_be_none or field.name in nullable:
            kind_of_member = kind_of_member | None
        default = msgspec.NODEFAULT if field.name in required else absent
        if default is msgspec.UNSET:
            kind_of_member = kind_of_member | msgspec.UnsetType
        meta = Meta(title=field.title, description=field.help or None)
        members.append((field.name, Annotated[kind_of_member, meta], default))
    return msgspec.defstruct(f"{base.__name__}With{kind.__name__}", members, bases=(base,), kw_only=True)


def _type_of_member(field: fields.Field) -> Any:
    """The JSON type of a field. If the domain has its own words for a refusal, the type sets no bounds."""
    if field.type == "boolean":
        return bool
    if field.is_number:
        return int if field.refusal else Annotated[int, Meta(ge=field.least, le=field.most)]
    if field.several:
        return list[Word]
    if field.type == "choice":
        return Word
    return str if field.refusal or field.most == fields.UNBOUNDED else Annotated[str, Meta(max_length=field.most)]


def sent_members(body: msgspec.Struct, *without: str) -> dict[str, Any]:
    """Returns the members that a request sent in its body, except those named in `without`."""
    members = {name: getattr(body, name) for name in body.__struct_fields__ if name not in without}
    return {name: value for name, value in members.items() if value is not msgspec.UNSET}


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls the API and what they may do with it. `token` is None for a browser."""

    person: Person
    scopes: tuple[str, ...]
    token: tokens.AccessToken | None = None
    session: str | None = None  # the digest of a browser's session


class Paged(msgspec.Struct, kw_only=True):
    """The query parameters of every list. A list with filters adds its own."""

    page: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    limit: Annotated[int, Meta(ge=1, le=MOST_ROWS)] = 50


# A cursor contains the sort values of a row, such as its name.
Cursor = Annotated[str, Meta(max_length=1_500)]


class Cursored(Paged, kw_only=True):
    """Give `cursor` instead of `page` to continue after an answer, up to the end of any list."""

    cursor: Cursor | None = None


class Page(msgspec.Struct, kw_only=True):
    """What the answer of a list has in addition to `data`. `total` is null above 10,000."""

    page: int
    limit: int
    total: int | None


class CursorPage(Page, kw_only=True):
    """`next_cursor` leads to the next rows and is null at the end. Without it, pages reach the first 10,000 rows."""

    next_cursor: str | None = None


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What a route declares about itself. `also` are further statuses of success. With `form`, the body may be a
    form."""

    rule: str
    method: str
    noun: str
    name: str
    scope: str | None
    query: type[msgspec.Struct] | None
    body: type[msgspec.Struct] | None
    form: bool
    answer: Any
    file: str | None
    status: int
    also: tuple[int, ...]
    throttled: bool
    calls: bool
    may_be_absent: bool
    text: str


OPERATIONS: list[Operation] = []
_GETTERS: dict[str, Callable[..., Any]] = {}  # the function that answers GET, by the route's rule
VERSIONS: dict[str, Version] = {}  # how its answer becomes an ETag, for rules with PUT or PATCH


class Fault(msgspec.Struct, kw_only=True):
    """Why a request was refused: a code for programs, a sentence for people, and the field at fault."""

    code: str
    message: str
    field: str | None = None


class Refusal(msgspec.Struct, kw_only=True):
    """The body of every answer with status 400 or above."""

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
    file: str | None = None,
    status: int = 200,
    also: tuple[int, ...] = (),
    writes: bool = False,
    throttled: bool = False,
    calls: bool = False,
    large: bool = False,
    may_be_absent: bool = False,
    versioned_by: tuple[str, ...] = (),
) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
    """Declares a route. Its function gets the parameters of the path, the decoded `query` and the decoded `body`.

    The function returns a Struct, a dictionary, None (for 204), or a pair with a status from `also`. The scope `admin`
    also needs a role: admin, or admin-readonly for reading. `any` accepts every valid token. None accepts everyone. A
    function that `writes` may run twice, so it must only call verbs of the domain. A route whose answer is a page of a
    list gets that list's query automatically. A `throttled` route counts attempts or failed ones, and may refuse them. One
    that answers with a `file` says its media type. One that
    `calls` a model may also be refused as /v1 refuses. A `large` body may have `LARGE_BODY` bytes.
    What `may_be_absent` is answered with 404 although its path names nothing.

    Members that a body does not know are refused. PUT accepts an object as GET returns it: members of the answer that
    the body cannot set are ignored.

    If PUT or PATCH can change an object, GET of the same rule answers with an `ETag`: a digest of the members that
    their body takes and of those that `versioned_by` names (see `versions`). A route that `writes` respects `If-Match`.
    A route that starts its own unit of work must do so with `unit`.
    """

    def declare(function: Callable[P, Any]) -> Callable[P, Any]:
        module = function.__module__.rpartition(".")[2]
        reading = query or (Cursored if isinstance(answer, type) and issubclass(answer, CursorPage) else None)
        parameters = None if reading is None else _parameters_of(reading)
        if body is not None:
            _must_forbid_unknown(body)
        if method == "GET":
            _GETTERS[rule] = function
        elif method in ("PUT", "PATCH") and body is not None:
            VERSIONS[rule] = Version(body, versioned_by)
        read_only = _read_only(body, answer) if method == "PUT" and body is not None else frozenset()
        policy = policies.of_scope(scope)
        policies.declare(f"{bp.name}.{module}_{function.__name__}", policy)
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
                file=file,
                status=status,
                also=also,
                throttled=throttled,
                calls=calls,
                may_be_absent=may_be_absent,
                text=inspect.getdoc(function) or function.__name__.replace("_", " "),
            )
        )

        @wraps(function)
        def view(*args: P.args, **kwargs: P.kwargs) -> Response:
            if scope is not None:
                g.caller = _authenticate()
                _must_hold(g.caller, policy)
                if file is not None:
                    throttles.count("export", g.caller.person.id, throttles.A_PERSON)
            if any("\0" in str(value) for value in kwargs.values()):
                raise NotFound("This object does not exist.")
            if reading is not None and parameters is not None:
                g.query = _query(reading, parameters)
                if query is not None:
                    kwargs["query"] = g.query
            if body is not None:
                kwargs["body"] = _form(body) if form and not request.is_json else read(body, read_only, large)
            elif method in TAKE_BODIES and request.is_json:
                read(Nothing)
            g.unchanged = None
            if method in CONDITIONAL and "If-Match" in request.headers:
                place = {name: value for name, value in kwargs.items() if name not in ("query", "body")}
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
    """Runs `work` as one unit of work, if the object still has the version that the request's `If-Match` names."""
    unchanged: Callable[[], None] | None = g.unchanged
    return transaction_if(unchanged, work, *args, **kwargs) if unchanged else transaction(work, *args, **kwargs)


def _must_match(rule: str, place: dict[str, Any]) -> None:
    """Raises `Stale` unless the object has a version that `If-Match` names, and `NotFound` if it is gone."""
    answer = _GETTERS[rule](**place) if rule in _GETTERS else None
    tags = request.if_match
    if not tags.star_tag and (rule not in VERSIONS or VERSIONS[rule].of(answer) not in tags):
        raise Stale("Somebody else has changed this since you read it. Read it again, then send your change again.")


def caller() -> Caller:
    """Returns who made this request."""
    found: Caller = g.caller
    return found


def me() -> Person:
    """Returns the person who made this request."""
    return caller().person


def _authenticate() -> Caller:
    """Returns the caller: by the access token if there is one, otherwise by the browser session. Raises
    `Unauthenticated`."""
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


def _must_hold(caller: Caller, policy: Policy) -> None:
    scope = policy.scope
    if not policy.allows(caller.person):
        raise Forbidden("This needs the role admin.")
    if not policy.allows(caller.person, request.method):
        raise Forbidden("This needs the role admin; admin-readonly may only read.")
    if scope != "any" and scope not in covered(caller.scopes):
        raise Forbidden(f"This needs an access token with the scope {scope}.")


# --- reading ---


def read(kind: type[T], read_only: frozenset[str] = frozenset(), large: bool = False) -> T:
    """Returns the request's JSON body as `kind`, without the `read_only` members. An empty body counts as an empty
    object.

    Raises `Malformed`, `TooLarge` or `Invalid`.
    """
    longest, most_parts = (LARGE_BODY, LARGE_PARTS) if large else (LONGEST_BODY, MOST_PARTS)
    data = request.get_data(cache=False)
    if len(data) > longest:
        raise TooLarge(f"The body may have at most {longest} bytes.")
    parts = count_parts(data, 4 * most_parts)
    if parts is None or parts.values > most_parts:
        raise TooLarge(f"The body may have at most {most_parts:,} values.")
    try:
        document = msgspec.json.decode(data) if data.strip() else {}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Malformed("The body is not JSON.") from None
    if not isinstance(document, dict):
        raise Malformed("The body must be a JSON object.")
    return convert({name: value for name, value in document.items() if name not in read_only}, kind)


def _form(kind: type[T]) -> T:
    """Returns the request's form as `kind`. It ignores unknown fields, as OAuth 2 requires: its clients send more."""
    known = {field.encode_name for field in msgspec.structs.fields(kind)}  # type: ignore[arg-type]
    return convert({name: value for name, value in request.form.items() if name in known}, kind)


def convert(document: Any, kind: type[T], *, strict: bool = True) -> T:
    """Returns `document` as `kind`. Raises `Invalid` with the path of the field at fault."""
    _must_be_storable(document)
    try:
        return msgspec.convert(document, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise fields.refusal_of(error) from None


def _must_be_storable(value: Any, path: str = "", depth: int = 0) -> None:
    """Refuses what no database or JSON reader accepts: NUL characters, integers beyond 64 bits, endless nesting."""
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
    """Raises `TypeError` if an object in the body, at any depth, would ignore unknown members."""
    structs = _structs_in(type_info(kind))
    lenient = [struct.__name__ for struct in structs if not struct.__struct_config__.forbid_unknown_fields]
    if lenient:
        raise TypeError(f"derive {', '.join(lenient)} from Body: unknown members would be ignored")


def _structs_in(kind: Any) -> Iterator[type[msgspec.Struct]]:
    """Yields the Structs that a described type consists of."""
    if isinstance(kind, StructType):
        yield kind.cls
        for field in kind.fields:
            yield from _structs_in(field.type)
    elif isinstance(kind, UnionType):
        for member in kind.types:
            yield from _structs_in(member)
    elif isinstance(kind, ListType):
        yield from _structs_in(kind.item_type)


def _read_only(body: type[msgspec.Struct], answer: Any) -> frozenset[str]:
    """Returns the members that an answer has and a body does not take."""
    if not (isinstance(answer, type) and issubclass(answer, msgspec.Struct)):
        return frozenset()
    answered, taken = ({field.encode_name for field in msgspec.structs.fields(kind)} for kind in (answer, body))
    return frozenset(answered - taken)


class _Parameter(msgspec.Struct, frozen=True):
    """One query parameter: its attribute, its name in the URL, and its type."""

    attribute: str
    name: str
    kind: Any


def _parameters_of(kind: type[msgspec.Struct]) -> tuple[_Parameter, ...]:
    """Returns the parameters of a query: texts, whole numbers, times and choices, all of them optional."""
    struct = type_info(kind)
    assert isinstance(struct, StructType)
    return tuple(_Parameter(field.name, field.encode_name, _type_of(field)) for field in struct.fields)


def _type_of(field: Field) -> Any:
    types = field.type.types if isinstance(field.type, UnionType) else (field.type,)
    kind = next((type_ for type_ in types if isinstance(type_, IntType | StrType | DateTimeType | LiteralType)), None)
    bounded = not isinstance(kind, IntType) or None not in (kind.ge, kind.le)
    if kind is None or field.required or not bounded:
        raise TypeError(f"{field.name} cannot be a query parameter: {field.type}")
    return kind


def _query(kind: type[T], parameters: Sequence[_Parameter]) -> T:
    """Returns the request's query as `kind`. Empty values count as absent. Raises `Invalid`."""
    values = {}
    for parameter in parameters:
        value = request.args.get(parameter.name)
        if value:
            values[parameter.attribute] = _parsed(value, parameter.name, parameter.kind)
    return kind(**values)


def _parsed(value: str, name: str, kind: Any) -> Any:
    if "\0" in value or len(value) > (getattr(kind, "max_length", None) or LONGEST_PARAMETER):
        raise Invalid("This value cannot be used.", name)
    match kind:
        case LiteralType(values=choices) if value not in choices:
            raise Invalid(f"Choose one of {', '.join(map(str, choices))}.", name)
        case DateTimeType():
            return _time(value, name)
        case IntType(ge=int(least), le=int(most)):
            if not value.isascii() or not value.isdigit() or len(value) > 12 or not least <= int(value) <= most:
                raise Invalid(f"Enter a number from {least} to {most}.", name)
            return int(value)
        case _:
            return value


def _time(value: str, name: str) -> datetime:
    """Parses an RFC 3339 time. A date alone means its start in UTC. Times before 1970 or after 2999 become these
    limits."""
    try:
        moment = datetime.fromisoformat(value.upper())
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return min(max(moment, EARLIEST), LATEST).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Invalid("Enter a time such as 2026-11-21T08:00:00Z.", name) from None


# --- answering ---


def page(rows: Select[Row], show: Callable[[Row], Any]) -> dict[str, Any]:
    """Returns one page of a list as the query asks: `page` starting at 1, or the rows after a `cursor`; `limit` is at
    most 200."""
    query = g.query
    try:
        result = cursors.page_of(rows, query.page, query.limit, query.cursor)
    except cursors.InvalidCursor:
        raise Invalid("Use the `next_cursor` of an earlier answer.", "cursor") from None
    within_reach(result.total, result.items)
    return {
        "data": [show(row) for row in result.items],
        "page": query.page,
        "limit": query.limit,
        "total": result.total if is_counted(result.total) else None,
        "next_cursor": result.next,
    }


def within_reach(total: int | None, items: Sequence[Any]) -> None:
    """Refuses a page beyond the rows that pages reach. Those rows exist, so an empty page would be wrong."""
    if not items and not g.query.cursor and (total is None or not is_counted(total)):
        raise Invalid(
            "Pages reach the first 10,000 rows of a list. Continue with `cursor`, the `next_cursor` of an answer.",
            "page",
        )


def listed(rows: Sequence[Any]) -> dict[str, Any]:
    """Returns one page of a list that is already complete, as the query asks."""
    number, limit = g.query.page, g.query.limit
    start = (number - 1) * limit
    return {"data": list(rows[start : start + limit]), "page": number, "limit": limit, "total": len(rows)}


def amount(nano: int | None) -> str | None:
    """Returns money as the API writes it."""
    return money.optional_text(nano)


def reply(result: Any, status: int = 200) -> Response:
    """Returns a JSON response. None becomes 204 without a body."""
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
    """The body cannot be read at all."""

    code = "invalid_body"


class Stale(DomainError):
    """The object no longer has the version that `If-Match` names."""

    status = 412
    code = "precondition_failed"


class TooLarge(DomainError):
    status = 413
    code = "body_too_large"


def refuse(status: int, code: str, message: str, field: str | None = None) -> Response:
    """Returns a refusal in the one shape of errors."""
    response = reply(Refusal(error=Fault(code=code, message=message, field=field)), status)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="Portico"'
    return response


def refuse_http(error: HTTPException) -> Response:
    """Returns Flask's own refusals (unknown path, wrong method, body too large) in the one shape of errors."""
    name = error.name.lower().replace(" ", "_")
    response = refuse(error.code or 500, name, error.description or error.name)
    allowed = getattr(error, "valid_methods", None)
    if allowed:
        response.headers["Allow"] = ", ".join(allowed)
    return response


@bp.errorhandler(DomainError)
def _refused(error: DomainError) -> Response:
    response = refuse(error.status, error.code, error.message, error.field)
    response.headers.update(error.headers)
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
    return refuse(409, "conflict", "Somebody else changed this at the same moment. Read it again, then retry.")


@bp.errorhandler(ObjectDeletedError)
def _gone(error: ObjectDeletedError) -> Response:
    db.session.rollback()
    return refuse(404, "not_found", "This no longer exists.")


@bp.errorhandler(DataError)
def _unstorable(error: DataError) -> Response:
    db.session.rollback()
    return refuse(422, "invalid_field", "A value is too long or too large to be stored.")


@bp.errorhandler(OperationalError)
def _away(error: OperationalError) -> Response:
    db.session.rollback()
    log.warning("the database did not answer: %s", type(error.orig).__name__)
    response = refuse(503, "unavailable", "The database does not answer at the moment. Try again.")
    response.headers["Retry-After"] = "5"
    return response
