"""Models that the settings file names are there after a start: each with a deployment at its Triton server.

What is there already stays as it is, whatever the file says by now: admins may have changed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import msgspec

from app.domain import catalog, providers
from app.domain.catalog import DeploymentSpec
from app.domain.errors import DomainError
from app.extensions import db
from app.providers.triton import TritonDeployment
from app.providers.triton_tensors import Input
from config import ConfigError, ConfiguredModel

HTTP_PORT = 8000  # Triton's own
_MAIN_OUTPUT = {"embeddings": "embedding"}  # by type; text otherwise


def ensure(models: Mapping[str, ConfiguredModel]) -> list[str]:
    """Create the models that are missing, and their providers; return the names of new models. Raises `ConfigError`."""
    made = []
    for name, about in models.items():
        if catalog.find_model(name) is not None:
            continue
        try:
            provider = _provider_at(address_of(about))
            spec = DeploymentSpec(provider_id=provider.id, upstream_model=name, settings=settings_of(about))
            capability = about.type if about.type not in ("grpc", "http") else "chat"
            catalog.create_model(by=None, name=name, capabilities=[capability], deployments=[spec])
        except DomainError as error:
            raise ConfigError(f"models.{name}: {error.message}") from None
        made.append(name)
    return made


def address_of(about: ConfiguredModel) -> str:
    """The address of a model's server: gRPC, unless the host, the type or the port says HTTP."""
    scheme, found, host = about.host.rpartition("://")
    if not found:
        scheme = "http" if about.type == "http" or about.port == HTTP_PORT else "grpc"
    host = host.rstrip("/")
    return f"{scheme}://{host}" if _has_port(host) else f"{scheme}://{host}:{about.port}"


def _has_port(host: str) -> bool:
    return host.rpartition("]")[2].rpartition(":")[2].isdecimal() and ":" in host.rpartition("]")[2]


def settings_of(about: ConfiguredModel) -> dict[str, Any]:
    """The deployment's settings: an argument is one of these settings, the name of the input of a meaning, or else an input
    that always has this value."""
    known = {field.name for field in msgspec.structs.fields(TritonDeployment)}
    settings: dict[str, Any] = {}
    for name, value in about.args.items():
        if name in known:
            settings[name] = value
        elif name in get_args(Input) and isinstance(value, str):
            settings.setdefault("inputs", {})[name] = value
        else:
            settings.setdefault("constants", {})[name] = value
    outputs = about.response
    if isinstance(outputs, str):
        outputs = {_MAIN_OUTPUT.get(about.type, "text"): outputs}
    if outputs:
        settings["outputs"] = {**settings.get("outputs", {}), **outputs}
    return settings


def _provider_at(address: str) -> providers.Provider:
    """The Triton provider at an address, a new one if there is none."""
    for item in db.session.scalars(providers.search(kind="triton")):
        if item.settings.get("base_url") == address:
            return item
    name = f"Triton {address.partition('://')[2]}"[:100]
    return providers.create(by=None, name=name, kind="triton", config={"base_url": address})
