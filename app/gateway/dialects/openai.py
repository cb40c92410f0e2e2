"""What OpenAI's dialects have in common: JSON bodies, the envelope of errors, and streams that `[DONE]` ends.

Members that are not named here pass through unchecked; the upstream knows them or refuses them itself.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from app.directory import Model
from app.gateway.dialects.base import Asked, Dialect
from app.gateway.envelope import decode_member, invalid, open_envelope
from app.gateway.errors import ApiError, bad_request
from app.metering.pricing import TokenBound
from app.providers.base import UpstreamError, UpstreamRequest

# Members of other gateways' clients by which a caller would steer the gateway to an address or a credential.
FORBIDDEN = ("api_base", "base_url", "api_key", "api_version", "extra_headers")
# The gateway's own: they steer, and never reach an upstream.
STEERING = ("provider", "fallback_providers")

MESSAGE_TOKENS = 16  # the frame of a message
# What the gateway itself writes into a body, beside the upstream's name of the model: a limit, and the wish for usage.
OWN_BYTES = len(b'"max_completion_tokens":2147483648,"stream_options":{"include_usage":true},')

ESCAPES_WITHIN = 32_768  # bytes at the beginning of a body

# Members by which upstreams sell more than tokens, or take another model or limit than the one that was reserved for.
PRICED_APART = frozenset((
    "audio", "web_search", "web_search_options", "search_parameters", "search_settings", "enable_search", "plugins",
    "mcp_servers", "speed", "inference_geo", "models", "fallbacks",
    "context_window_fallbacks", "content_policy_fallbacks", "extra_body", "additional_drop_params",
))  # fmt: skip
USUAL_TIERS = ("auto", "default", "standard", "standard_only")
CLIENTS_TOOLS = ("function", "custom")  # the client runs them; all others run at the upstream, which charges for them

Name = Annotated[str, Meta(min_length=1, max_length=256)]


class JsonRequest(msgspec.Struct):
    """What every request that names a model has."""

    model: Name
    provider: Name | None = None
    fallback_providers: Annotated[list[Name], Meta(max_length=20)] | None = None
    user: str | None = None

    required: ClassVar[tuple[str, ...]] = ("model",)
    lists: ClassVar[dict[str, type]] = {}  # members that are lists, and the type of their items

    @property
    def stream(self) -> bool | None:
        """Whether the answer is to come as a stream."""
        return False

    @property
    def include_usage(self) -> bool:
        """Whether a stream is to end with a chunk that tells its usage."""
        return False

    def check(self) -> None:
        """What the types cannot say. Raises `ApiError` 400."""

    def bound(self, size: int, members: dict[str, bytes], model: Model, priced_apart: str | None) -> TokenBound:
        """The most that this request can use. `size` is what the body is in bytes, see `size_of`; `priced_apart` the member
        that may cost more than tokens, see `priced_apart`; after `check`."""
        raise NotImplementedError


NOTHING = (b"null", b'""')


class OpenAIDialect(Dialect):
    """A path of OpenAI's API whose request is JSON of the type `request`."""

    end: ClassVar[bytes] = b"data: [DONE]\n\n"
    request: ClassVar[type[JsonRequest]]
    own: ClassVar[tuple[str, ...]] = STEERING  # members that the gateway takes out

    def read(self, body: Any) -> Asked:
        members, values = open_envelope(body)
        checked = parse(self.request, values, members)
        apart = priced_apart(checked, values)
        for name in self.own:
            members.pop(name, None)
        return Asked(checked, members, size_of(body), apart, tier_of(values))

    def conversation_id(self, request: UpstreamRequest, session: str) -> str:
        named = request.members.get("prompt_cache_key", b"null")
        if named not in NOTHING:
            return f"cache {str(named, 'utf-8')}"
        if session:
            return f"session {session}"
        for name in ("session_id", "conversation"):
            named = request.members.get(name, b"null")
            if named not in NOTHING:
                return f"session {str(named, 'utf-8')}"
        return self.opening(request)

    def opening(self, request: UpstreamRequest) -> str:
        """How the request's conversation begins, which stays while it grows; "" where requests stand alone."""
        return ""

    def error(self, error: ApiError, request_id: str) -> bytes:
        return envelope_of(error)

    def cut(
        self, message: str, error: UpstreamError | ApiError | None = None, sent: tuple[bytes, bytes] = (b"", b"")
    ) -> bytes:
        body = {"error": {"message": message, "type": "upstream_error", "param": None, "code": "upstream_cut"}}
        return b"data: " + msgspec.json.encode(body) + b"\n\n"


def envelope_of(error: ApiError) -> bytes:
    """A refusal as OpenAI's SDKs read it, JSON."""
    return msgspec.json.encode(
        {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}
    )


def size_of(body: bytes) -> int:
    """The bytes of a body in UTF-8, its escapes read: the six of one such as `\\u4e2d` stand for three at the most.

    Where two backslashes come before the `u` it may be text about an escape, and all its bytes count. So do escapes
    that come late in a long body: looking for them takes longer than reading it.
    """
    escapes = body.count(b"\\u", 0, ESCAPES_WITHIN)
    return len(body) - 3 * (escapes - body.count(b"\\\\u", 0, ESCAPES_WITHIN)) if escapes else len(body)


def added(model: Model) -> int:
    """The bytes that the gateway writes into a body at the most."""
    longest = 0
    for one in model.deployments:
        longest = max(longest, len(one.upstream_model.encode()))
    return OWN_BYTES + longest


def priced_apart(asked: JsonRequest, values: dict[str, Any]) -> str | None:
    """The member of a body that may cost more than its tokens at the model's price; None where there is none."""
    if (name := member_priced_apart(values)) is not None:
        return name
    for index, tool in enumerate(getattr(asked, "tools", None) or ()):
        if tool["type"] not in CLIENTS_TOOLS:
            return f"tools[{index}].type"
    return None


def member_priced_apart(values: dict[str, Any]) -> str | None:
    """The same without a look at the tools."""
    if not PRICED_APART.isdisjoint(values):
        for name in sorted(PRICED_APART.intersection(values)):
            if values[name] not in (None, False):
                return name
    modalities = values.get("modalities")
    if modalities is not None and modalities != ["text"]:
        return "modalities"
    return None


def tier_of(values: dict[str, Any]) -> str | None:
    """The service tier that a body asks for; None for the usual one."""
    tier = values.get("service_tier")
    if tier is None or tier in USUAL_TIERS:
        return None
    return tier if isinstance(tier, str) else ""  # no price has a tier without a name


MOST_TEXTS = 2048


def texts_of(given: Any, name: str, *, may_be_empty: bool = False) -> list[Any]:
    """The value of a member that is a text, a list of texts, a list of tokens or a list of such, as a list of texts or of
    lists of tokens. Raises `ApiError` 400."""
    if isinstance(given, str) or isinstance(given, list) and given and all(type(token) is int for token in given):
        given = [given]
    if not isinstance(given, list) or not given:
        raise bad_request(f"'{name}' must be a text, a list of texts, or a list of tokens, and not empty.", name)
    if len(given) > MOST_TEXTS:
        raise bad_request(f"'{name}' may have at most {MOST_TEXTS} items.", name)
    for index, item in enumerate(given):
        is_text = isinstance(item, str) and (item or may_be_empty)
        tokens = isinstance(item, list) and item and all(type(token) is int and token >= 0 for token in item)
        if not is_text and not tokens or type(item) is not type(given[0]):
            place = f"{name}[{index}]"
            raise bad_request(f"'{place}' must be a text or a list of tokens, as the first is.", place)
    return given


def tokens_of(texts: list[Any], size: int, member: bytes) -> int:
    """The most tokens in a body of `size` bytes with these texts, or lists of tokens, in `member`."""
    if isinstance(texts[0], list):  # of a list of tokens each is one, however many digits it has
        return size - len(member) + sum(map(len, texts))
    return size + MESSAGE_TOKENS * len(texts)


def parse(kind: type[JsonRequest], values: dict[str, Any], members: dict[str, bytes], *, strict: bool = True) -> Any:
    """A body's values as `kind`; raises `ApiError` 400 naming the member that is wrong. Not `strict`: all are texts."""
    for name in FORBIDDEN:
        if name in members:
            raise bad_request(f"'{name}' can't be set here: providers are configured in the portal.", name)
    for name in kind.required:
        if name not in members:
            raise bad_request(f"Missing required parameter: '{name}'.", name)
    try:
        asked: Any = msgspec.convert(values, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise _placed(kind, members, error) from None
    except RecursionError:
        raise bad_request("The request body is nested too deep.") from None
    asked.check()
    return asked


def _placed(kind: type[JsonRequest], members: dict[str, bytes], error: msgspec.ValidationError) -> ApiError:
    """The refusal with the exact place: lists are gone through one by one, for the decoder tells no index."""
    message, _, path = str(error).replace("`key` in `$", "`$").partition(" - at `$.")
    param = path.rstrip("`")
    name, marker, rest = param.partition("[...]")
    if marker and name in members:
        try:
            items = msgspec.json.decode(members[name], type=list[msgspec.Raw])
        except msgspec.DecodeError:
            items = []
        for index, item in enumerate(items if name in kind.lists else ()):
            try:
                decode_member(bytes(item), kind.lists[name], f"{name}[{index}]")
            except ApiError as placed:
                return placed
        param = name + rest.replace("[...]", "")
    return invalid(param, message)
