"""Every way a /v1 call can be refused: status, `error.type` and `error.code`, as OpenAI names them.

One exception carries them; the functions below are the rows of the contract's error table. The client's dialect writes
the envelope.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.directory import CallerRecord
from app.metering.usage import Refusal

INVALID = "invalid_request_error"
KEYS_PAGE = "/keys"
# For what another attempt can't change: clients would repeat it, and hide its message.
FINAL = {"x-should-retry": "false"}
SHOWN_PATH = 500  # characters


class ApiError(Exception):
    """A refusal of a /v1 call: what the client is told, and nothing else."""

    def __init__(
        self,
        status: int,
        type: str,
        code: str | None,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        original: tuple[str, bytes] | None = None,
        page: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.code = code
        self.message = message
        self.param = param
        self.headers = dict(headers or {})
        self.original = original  # the upstream's own words, see `UpstreamError`
        self.page = page  # of the portal, where people can do something about it; the door tells its address
        self.refusal: Refusal | None = None  # the limit or the model that is why
        self.caller: CallerRecord | None = None  # whose key it is, where that is known although it is not valid


def no_key() -> ApiError:
    return ApiError(
        401,
        INVALID,
        None,
        "No API key was given. Send it as `Authorization: Bearer sk-…`; keys are made in the portal.",
        page=KEYS_PAGE,
    )


def bad_key(caller: CallerRecord | None = None) -> ApiError:
    """`caller` is the record of a key that has expired."""
    error = ApiError(
        401,
        INVALID,
        "invalid_api_key",
        "This API key is not valid: it is unknown, paused, revoked or expired. The portal tells which, under API keys.",
        page=KEYS_PAGE,
    )
    error.caller = caller
    return error


def bad_request(message: str, param: str | None = None) -> ApiError:
    return ApiError(400, INVALID, None, message, param=param)


def too_large(limit_mb: int) -> ApiError:
    return ApiError(413, INVALID, None, f"The request body is too large; at most {limit_mb} MB are taken.")


def unknown_encoding(name: str) -> ApiError:
    return ApiError(
        415,
        INVALID,
        None,
        f"Bodies with the content encoding '{name}' are not taken. Send gzip, zstd, or no content encoding.",
        headers={"Accept-Encoding": "gzip, zstd"},
    )


def unknown_model(name: str, page: str, status: int = 404) -> ApiError:
    """`page` is the address of the catalogue."""
    error = ApiError(
        status,
        INVALID,
        "model_not_found",
        f"The model '{name}' does not exist or this key may not use it. GET /v1/models lists what it may; request access at"
        f" {page}",
        param="model",
    )
    error.refusal = Refusal(reason="model", asked=name)
    return error


def unknown_path(method: str, path: str, hint: str = "") -> ApiError:
    return ApiError(404, INVALID, None, f"Unknown request URL: {method} {path[:SHOWN_PATH]}. {hint}".rstrip())


def wrong_method(method: str, path: str) -> ApiError:
    return ApiError(405, INVALID, None, f"Not allowed: {method} on {path[:SHOWN_PATH]}.")


def out_of_scope(scope: str, scopes: tuple[str, ...]) -> ApiError:
    return ApiError(
        403, INVALID, "insufficient_scope",
        f"This key may not be used for '{scope}', only for {', '.join(scopes)}. The portal tells and changes it, under API keys.",
        page=KEYS_PAGE,
    )  # fmt: skip


def routing_fixed() -> ApiError:
    return ApiError(
        403,
        INVALID,
        None,
        "This key's routing is fixed: it may not name `provider` or `fallback_providers`.",
        param="provider",
        page=KEYS_PAGE,
    )


def endpoint_disabled(path: str) -> ApiError:
    return ApiError(
        503, "service_unavailable_error", "endpoint_disabled", f"{path} is switched off here. Ask an administrator.",
        headers=FINAL,
    )  # fmt: skip


def internal() -> ApiError:
    """A fault of the gateway's own, which the log tells of."""
    return ApiError(500, "server_error", "internal_error", "The gateway failed. The log tells more by the request id.")


def unavailable(what: str, retry_after_s: int = 1) -> ApiError:
    """Trouble inside: never blamed on the key."""
    return ApiError(
        503,
        "service_unavailable_error",
        None,
        f"{what} can't be reached at the moment. Try again shortly.",
        headers={"Retry-After": str(retry_after_s)},
    )


def upstream_failed(message: str) -> ApiError:
    return ApiError(502, "upstream_error", None, message)


def upstream_refused(
    status: int, message: str, param: str | None, code: str | None, original: tuple[str, bytes] | None = None
) -> ApiError:
    return ApiError(status, INVALID, code, message, param=param, original=original)


def upstream_busy(retry_after_s: int) -> ApiError:
    return ApiError(
        429,
        "upstream_error",
        None,
        "Every provider of this model is limiting requests at the moment.",
        headers={"Retry-After": str(retry_after_s)},
    )


def upstream_timeout(reason: str = "") -> ApiError:
    """`reason` tells which deadline the last of them missed."""
    message = f"No provider of this model answered in time. {reason}".rstrip()
    return ApiError(504, "upstream_error", "upstream_timeout", message)


def upstream_resting(retry_after_s: int, reason: str) -> ApiError:
    """Nobody is asked: clients would wait in vain, for `reason`."""
    return ApiError(
        504,
        "upstream_error",
        "upstream_timeout",
        f"No provider of this model answers in time, so it is not asked again for {retry_after_s} s. {reason}".rstrip(),
        headers={"Retry-After": str(retry_after_s)},
    )
