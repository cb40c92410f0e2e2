"""`python -m app doctor`: looks at everything that Portico stands on, and says how to fix what is wrong.

It changes nothing and may run beside a running Portico or before the first start.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import smtplib
import socket
import ssl
import stat
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import redis
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from app import clock, store
from app.domain.deliveries import mail_server
from app.extensions import connect_args, knows_revision, newest_revision, prepare
from app.runtime import timekeeping
from app.workflows import backups
from config import Config, ConfigError, load

Level = Literal["ok", "warning", "error"]

PATIENCE_S = 5.0
OLDEST_POSTGRESQL, OLDEST_REDIS = 15, (7, 2)
SCARCE_BYTES, FEW_BYTES = 1 << 30, 5 << 30
FEW_FILES, ENOUGH_FILES = 4096, 40_000  # a stream needs two, and a worker takes up to 20,000 connections
CERTIFICATE_DAYS = 14


class Finding(NamedTuple):
    """What a check says: one line, with how to fix it."""

    level: Level
    what: str
    fix: str = ""


def main(arguments: list[str]) -> int:
    """Print a line a check; 1 if one of them found an error."""
    argparse.ArgumentParser(prog="python -m app doctor", description=__doc__).parse_args(arguments)
    found = dict(examine())
    for name, finding in found.items():
        print(f"{name:12}{finding.level:8} {finding.what}{f' {finding.fix}' if finding.fix else ''}")
    errors = [name for name, finding in found.items() if finding.level == "error"]
    warnings = sum(finding.level == "warning" for finding in found.values())
    if errors:
        print(f"Portico cannot run well like this: look at {', '.join(errors)}.")
        return 1
    print(
        f"Nothing is wrong{f', with {warnings} warnings' if warnings > 1 else ', with 1 warning' if warnings else ''}."
    )
    return 0


def examine() -> Iterator[tuple[str, Finding]]:
    """Each check's name and finding, in order."""
    try:
        config = load()
        yield "settings", _settings(config)
    except ConfigError as error:
        yield "settings", Finding("error", f"{error}")
        for name in CHECKS:
            yield name, Finding("warning", "Not looked at: the settings come first.")
        return
    for name, check in CHECKS.items():
        yield name, check(config)


def _settings(config: Config) -> Finding:
    given = config.security
    from_settings = given.session_secret and given.key_pepper and given.encryption_keys
    where = f"{config.server.environment}, doors {', '.join(config.server.doors)}"
    path = config.secrets_file
    if from_settings or path.exists():
        try:
            config.secrets()
        except ConfigError as error:
            return Finding("error", f"{error}")
    if not from_settings and path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
        return Finding("error", f"Others can read {path}.", f"Run: chmod 600 {path}")
    if not from_settings and config.production and config.database.url:
        return Finding(
            "warning",
            f"{where}; the secrets are in {path} of this host alone." if path.exists() else f"{where}; no secrets yet.",
            "Hosts that share a database need the same ones: set security.session_secret, security.key_pepper and"
            " security.encryption_keys.",
        )
    if config.production and config.demo_enabled:
        return Finding("warning", f"{where}; demo content is on.", "Set demo.enabled to false.")
    return Finding("ok", f"{where}.")


def _database(config: Config) -> Finding:
    engine = create_engine(config.database_url, connect_args=connect_args(config))
    if config.database_url.startswith("sqlite") and not Path(str(engine.url.database)).exists():
        return Finding("warning", "There is no database yet.", "The first start makes it (python -m app.setup).")
    prepare(engine)
    began = time.perf_counter()
    try:
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                kind = f"SQLite {connection.scalar(text('SELECT sqlite_version()'))}"
            else:
                number = str(connection.scalar(text("SHOW server_version")))
                kind = f"PostgreSQL {number}"
                if int(number.partition(".")[0]) < OLDEST_POSTGRESQL:
                    return Finding("error", f"{kind} is too old.", f"Use PostgreSQL {OLDEST_POSTGRESQL} or newer.")
            has_tables = inspect(connection).has_table("alembic_version")
            revision = connection.scalar(text("SELECT version_num FROM alembic_version")) if has_tables else None
    except SQLAlchemyError as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        return Finding("error", f"It does not answer: {reason}.", "Check database.url, and that the server runs.")
    finally:
        engine.dispose()
    answered = f"{kind} answers in {(time.perf_counter() - began) * 1000:.0f} ms"
    if revision == newest_revision():
        return Finding("ok", f"{answered}, at revision {revision}.")
    if revision is not None and not knows_revision(revision):
        return Finding("error", f"{answered}; its revision {revision} is of a newer version.", "Upgrade Portico.")
    return Finding("error", f"{answered}; its tables are not of this version.", "Run: python -m app.setup")


def _redis(config: Config) -> Finding:
    if config.redis_embedded and not config.redis_socket.exists():
        return Finding("warning", "The embedded Valkey does not run.", "`make run` starts it; or set redis.url.")
    client = store.connect(config.redis_url)
    try:
        info: dict[str, Any] = client.info()
        client.set(store.PROBE, os.getpid(), ex=60)
    except redis.RedisError as error:
        return Finding(
            "error", f"It takes no writes: {error}.", "Check redis.url, and that it is the primary with memory left."
        )
    product = "Valkey" if "valkey_version" in info else "Redis"
    number = str(info.get("valkey_version") or info["redis_version"])
    if tuple(int(part) for part in number.split(".")[:2]) < OLDEST_REDIS:
        return Finding("error", f"{product} {number} is too old.", "Use Redis or Valkey 7.2 or newer.")
    if info["maxmemory_policy"] != "noeviction":
        return Finding(
            "error", f"{product} {number} drops keys when memory is short.", "Set maxmemory-policy noeviction."
        )
    if not info["aof_enabled"]:
        return Finding(
            "warning",
            f"{product} {number} keeps nothing over a restart; budgets are then recounted first.",
            "Set appendonly yes and appendfsync everysec.",
        )
    return Finding("ok", f"{product} {number}, {info['used_memory_human']} used.")


def _clock(config: Config) -> Finding:
    try:
        times = timekeeping.look(store.connect(config.redis_url))
    except redis.RedisError:
        return Finding("warning", "Not compared: Redis does not answer.", "Keep every host on NTP.")
    if not times.are_right:
        return Finding(
            "error",
            f"The clocks of this host and of Redis differ by {abs(times.difference_ms) / 1000:.1f} s."
            if abs(times.difference_ms) > timekeeping.TOLERATED_MS
            else "Redis's clock jumped within the last 10 minutes.",
            "Keep both hosts on NTP.",
        )
    return Finding("ok", f"Redis's clock differs by {abs(times.difference_ms)} ms.")


def _tls(config: Config) -> Finding:
    url = config.server.public_url
    if url is None:
        return Finding("ok", "No public address: development.")
    parts = urlsplit(url)
    if parts.scheme != "https":
        level: Level = "error" if config.production else "warning"
        return Finding(level, f"{url} is not encrypted.", "Let a proxy end TLS, and set server.public_url to https://…")
    host, port = parts.hostname or "", parts.port or 443
    try:
        with (
            socket.create_connection((host, port), PATIENCE_S) as plain,
            ssl.create_default_context().wrap_socket(plain, server_hostname=host) as encrypted,
        ):
            certificate = encrypted.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        return Finding(
            "error", f"The certificate of {host} is not trusted: {error.verify_message}.", "Renew or complete it."
        )
    except OSError as error:
        return Finding("warning", f"{host}:{port} cannot be reached from here ({error}).", "Check it from outside.")
    left = timedelta(seconds=ssl.cert_time_to_seconds(str(certificate["notAfter"])) - clock.now_s())
    if left.days < CERTIFICATE_DAYS:
        return Finding("warning", f"The certificate of {host} ends in {left.days} days.", "Renew it.")
    return Finding("ok", f"The certificate of {host} is valid for {left.days} days.")


def _smtp(config: Config) -> Finding:
    mail = config.mail
    if mail.host is None:
        return Finding("ok", "No mail server is set: people are notified in the portal only.")
    try:
        with mail_server(mail) as server:
            server.noop()
    except smtplib.SMTPAuthenticationError:
        return Finding(
            "error", f"{mail.host} refuses the username or password.", "Check mail.username and mail.password."
        )
    except ssl.SSLError as error:
        return Finding(
            "error", f"{mail.host}: {error}.", "Check mail.security (starttls, tls, none) and its certificate."
        )
    except (smtplib.SMTPException, OSError) as error:
        return Finding(
            "error",
            f"{mail.host}:{mail.port} does not serve: {error}.",
            "Check mail.host, mail.port and mail.security.",
        )
    how = "unencrypted" if mail.security == "none" else mail.security
    return Finding("ok", f"{mail.host}:{mail.port} answers ({how}).")


def _disk(config: Config) -> Finding:
    folder = config.data_dir
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return Finding(
            "error", f"{folder} cannot be written.", f"Give it to the user {os.getuid()}, or set storage.data_dir."
        )
    free = shutil.disk_usage(folder).free
    told = f"{free / (1 << 30):.1f} GB free in {folder}"
    if free < SCARCE_BYTES:
        return Finding(
            "error", f"{told}: spools need room, or /v1 stops.", "Make room, or set storage.data_dir elsewhere."
        )
    if free < FEW_BYTES:
        return Finding("warning", f"{told}.", "Make room soon.")
    if (place := config.backup_dir) is not None:
        last = next(iter(backups.made_by_itself(place)), None)
        age_h = (clock.now_s() - last.stat().st_mtime) / 3600 if last else None
        if age_h is None or age_h > 2 * config.backup.every_hours:
            since = "there is no backup yet" if age_h is None else f"the last backup is {age_h:.0f} h old"
            return Finding("warning", f"{told}; {since} in {place}.", "See the job `backups` on the page of the jobs.")
    return Finding("ok", f"{told}.")


def _descriptors(config: Config) -> Finding:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY or most >= ENOUGH_FILES:
        return Finding("ok", "Unlimited." if most == resource.RLIM_INFINITY else f"Up to {most} a process.")
    level: Level = "error" if most < FEW_FILES else "warning"
    fix = "Raise the hard limit: LimitNOFILE= of systemd, ulimits of the container, /etc/security/limits.conf."
    return Finding(level, f"Up to {most} a process, two a stream.", fix)


CHECKS: dict[str, Callable[[Config], Finding]] = {
    "database": _database,
    "redis": _redis,
    "clock": _clock,
    "tls": _tls,
    "smtp": _smtp,
    "disk": _disk,
    "descriptors": _descriptors,
}
