"""The settings, secrets and clients of the current application, typed.

It imports no SQL and connects to Redis on first use, so that both sides can use it.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask, current_app
from redis import Redis

from app import store
from app.runtime.sealing import Sealer
from config import Config, Secrets

IN_FORCE = "portico_settings"


def remember(app: Flask, config: Config) -> None:
    """Store `config`, its secrets and a sealer in `app`; the factory calls this once."""
    secrets = config.secrets()
    app.config["PORTICO"] = config
    app.config["SECRETS"] = secrets
    app.config["SEALER"] = Sealer(secrets.encryption_keys, config.encryption_keys)


def follow_stored(app: Flask, in_force: Callable[[Config], Config]) -> None:
    """Let `config` answer what `in_force` makes of the settings of the start; the cold side calls this once."""
    app.extensions[IN_FORCE] = in_force


def config() -> Config:
    """The settings in force: those of the start and, on the cold side, those that admins have stored."""
    config: Config = current_app.config["PORTICO"]
    in_force = current_app.extensions.get(IN_FORCE)
    return in_force(config) if in_force else config


def secrets() -> Secrets:
    secrets: Secrets = current_app.config["SECRETS"]
    return secrets


def sealer() -> Sealer:
    """Seals provider credentials with the deployment's encryption keys."""
    sealer: Sealer = current_app.config["SEALER"]
    return sealer


def redis() -> Redis:
    """The cold side's Redis client. It connects on first use."""
    return store.connect(current_app.config["PORTICO"].redis_url)
