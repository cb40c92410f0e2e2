"""Prepares a database: migrates it, gives an empty one its first admin and demo content, and publishes everything.

It is safe to run at every start. A generated password is printed once, on a line of its own; the demo person's too, but
they need not change it.
"""

from __future__ import annotations

import sys
import time

from redis import RedisError

from app import create_app
from app.domain import catalog, encryption_keys, identity, passwords, providers
from app.domain.catalog import DeploymentSpec
from app.domain.person import Person
from app.extensions import db, migrate_to, transaction
from app.jobs.drainer import Drainer
from app.runtime import logs
from app.workflows import config_changes, configured_models, publication
from config import Config, ConfigError, load

REDIS_PATIENCE_S = 20.0


def set_up(config: Config) -> list[str]:
    """Bring the database up to this version and return the lines to show once.

    Raises `RedisError` when Redis does not answer within `REDIS_PATIENCE_S`.
    """
    app = create_app(config, ())
    with app.app_context():
        migrate()
        lines = transaction(_create_first_content, config)
        _publish(config)
        db.session.remove()
    return lines


def migrate(revision: str = "head") -> None:
    """Run the migrations up to `revision` on the application's database."""
    migrate_to(db.engine, revision)


def _create_first_content(config: Config) -> list[str]:
    providers.ensure_endpoints()
    configured_models.ensure(config.models)
    first = identity.first_admin(config.auth.admin_username, config.auth.admin_password)
    lines: list[str] = []
    if first is not None:
        admin, password = first
        lines += [f"First admin: {admin.username}, password: {password}"] if password else []
        if config.demo_enabled:
            lines += _demo(admin)
    config_changes.ensure_first()
    encryption_keys.note_keys()
    return lines


def _demo(admin: Person) -> list[str]:
    """Create a provider that needs no upstream, an open and a restricted model, and an ordinary person."""
    echo = providers.create(by=None, name="Echo", kind="echo", config={})
    deployments = [DeploymentSpec(provider_id=echo.id, upstream_model="echo")]
    catalog.create_model(
        by=None,
        name="echo-1",
        display_name="Echo",
        description="Answers with what it was asked. It runs inside Portico, for trying things out.",
        capabilities=["chat", "embeddings"],
        features=["streaming", "demo"],
        context_window=32_768,
        max_output_tokens=4_096,
        price={"input_per_mtok": "0.15", "output_per_mtok": "0.60", "cached_input_per_mtok": "0.075"},
        deployments=deployments,
    )
    catalog.create_model(
        by=None,
        name="echo-restricted",
        display_name="Echo, restricted",
        description="The same, but an admin has to approve each subscription.",
        capabilities=["chat"],
        features=["streaming", "demo"],
        context_window=32_768,
        max_output_tokens=4_096,
        restricted=True,
        price={"input_per_mtok": "2.50", "output_per_mtok": "10"},
        deployments=deployments,
    )
    if identity.find("demo"):  # the settings may have named the first admin so
        return []
    password = identity.random_password()
    person = identity.create(by=None, username="demo", password=passwords.hashed(password))
    return [f"Demo person: {person.username}, password: {password}"]


def _publish(config: Config) -> None:
    """Publish everything and open the meter; wait for a Redis that is still starting."""
    deadline = time.monotonic() + REDIS_PATIENCE_S
    while True:
        try:
            publication.publish_all()
            Drainer(config.redis_url, config.spool_dir).recount()
            return
        except RedisError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def main() -> int:
    try:
        config = load()
        logs.configure(config, "setup")
        lines = set_up(config)
    except ConfigError as error:
        print(f"Portico cannot start: {error}", file=sys.stderr)
        return 2
    except RedisError as error:
        print(f"Portico cannot start: Redis does not answer ({error}). Check CONFIG_REDIS_URL.", file=sys.stderr)
        return 1
    for line in lines:
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
