"""What the current application was created with, by name and type instead of by magic string.

It knows neither SQL nor Redis until asked, so that both sides of the house can use it.
"""

from __future__ import annotations

from flask import Flask, current_app
from redis import Redis

from app import store
from app.runtime.sealing import Sealer
from config import Config, Secrets


def remember(app: Flask, config: Config) -> None:
    """Called once by the factory."""
    secrets = config.secrets()
    app.config["PORTICO"] = config
    app.config["SECRETS"] = secrets
    app.config["SEALER"] = Sealer(secrets.encryption_keys)


def config() -> Config:
    found: Config = current_app.config["PORTICO"]
    return found


def secrets() -> Secrets:
    found: Secrets = current_app.config["SECRETS"]
    return found


def sealer() -> Sealer:
    """Seals provider credentials under the deployment's encryption keys."""
    found: Sealer = current_app.config["SEALER"]
    return found


def redis() -> Redis:
    """The cold side's Redis client; connections are made when first used."""
    return store.connect(config().redis_url)
