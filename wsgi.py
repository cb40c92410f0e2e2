"""What gunicorn serves: two applications from one factory, told apart by the path, so that /v1 carries nothing cold.

`application` is built when first asked for; `flask --app wsgi` gets the cold side's own application.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from app import create_app as open_doors
from app.gateway.endpoints import is_without_v1
from app.runtime import logs
from config import Config, load

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from flask import Flask

Side = Callable[..., Iterable[bytes]]


class Doors:
    """One WSGI application for all the doors of the settings. A side without a door does not exist.

    `fast_path` is the way around WSGI that gunicorn's worker may take for the busiest routes of /v1 (gunicorn.conf.py).
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        doors = set(config.server.doors)
        gateway = open_doors(config, {"v1"}) if "v1" in doors else None
        portal = open_doors(config, doors - {"v1"}) if doors - {"v1"} else None
        only = gateway or portal
        assert only is not None  # the settings have at least one door
        self._gateway: Side = gateway or only
        self._portal: Side = portal or only
        self.fast_path = gateway.extensions["fast_path"] if gateway and config.server.fast_lane else None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        is_v1 = path == "/v1" or path.startswith("/v1/")
        side = self._gateway if is_v1 or is_without_v1(path, by_a_client=_is_a_client(environ)) else self._portal
        return side(environ, start_response)


def _is_a_client(environ: WSGIEnvironment) -> bool:
    """Whether a program asks with a key. Proxies that sign people in give browsers' requests credentials too."""
    has_key = "HTTP_X_API_KEY" in environ or environ.get("HTTP_AUTHORIZATION", "")[:7].lower() == "bearer "
    return has_key and "text/html" not in environ.get("HTTP_ACCEPT", "") and "HTTP_HX_REQUEST" not in environ


def create_app() -> Flask:
    """The cold side's application with the doors of the settings, for the command line."""
    config = load()
    logs.configure(config, "command")
    return open_doors(config, set(config.server.doors) - {"v1"})


@cache
def _application() -> Doors:
    return Doors(load())


def __getattr__(name: str) -> Any:
    if name == "application":
        try:
            return _application()
        except AttributeError as error:  # else the import machinery would report that `application` is missing
            raise RuntimeError("the application could not be built") from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
