"""What gunicorn serves: two applications from one factory, told apart by the path, so that /v1 carries nothing cold.

`application` is built when first asked for; `flask --app wsgi` gets the cold side's own application.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from app import create_app as open_doors
from config import Config, load

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from flask import Flask


def dispatch(config: Config) -> WSGIApplication:
    """One WSGI application for all the doors of the settings. A side without a door does not exist."""
    doors = set(config.server.doors)
    gateway = open_doors(config, {"v1"}) if "v1" in doors else None
    portal = open_doors(config, doors - {"v1"}) if doors - {"v1"} else None
    if gateway is None or portal is None:
        only = gateway or portal
        assert only is not None  # the settings have at least one door
        return only

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        side: Callable[..., Iterable[bytes]] = gateway if path == "/v1" or path.startswith("/v1/") else portal
        return side(environ, start_response)

    return application


def create_app() -> Flask:
    """The cold side's application with the doors of the settings, for the command line."""
    config = load()
    return open_doors(config, set(config.server.doors) - {"v1"})


@cache
def _application() -> WSGIApplication:
    return dispatch(load())


def __getattr__(name: str) -> Any:
    if name == "application":
        try:
            return _application()
        except AttributeError as error:  # else the import machinery would report that `application` is missing
            raise RuntimeError("the application could not be built") from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
