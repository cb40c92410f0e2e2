"""Backup and restore: the database as one file, in a form that every database and every later version can read.

A backup is a zip archive: `manifest.json`, one member `tables/<name>` a table with a JSON array a row, `settings.json`
(without secrets) and `README.txt` (what to keep beside it). All tables are read in one snapshot, while Portico runs.
Provider credentials stay sealed, keys and passwords stay hashed; the secrets that open them are in the backup only if a
passphrase was given, encrypted with it (`secrets.sealed`).

Redis is not in it: what it holds comes from the database and is published at the next start.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets as random_source
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any

import msgspec
import structlog
from cryptography.fernet import Fernet, InvalidToken
from sqlalchemy import (
    JSON,
    Connection,
    DateTime,
    Engine,
    Text,
    bindparam,
    cast,
    column,
    create_engine,
    func,
    insert,
    inspect,
    select,
    table,
    text,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql.expression import ColumnClause, TableClause

from app import clock
from app.extensions import connect_args, knows_revision, migrate_to, prepare
from app.workflows.status import version
from config import Config

FORMAT = 1
CHUNK = 1000  # rows
COST_FACTOR = 2**14  # of scrypt: 16 MB and some 50 ms a try
VERSIONS = "alembic_version"
LEDGER = "usage_entry"
SECRET_SETTING = re.compile(r"password|secret|pepper|token|_key$|_keys$|^url$")

log = structlog.get_logger(__name__)


class BackupError(Exception):
    """Why a backup cannot be made or restored: a sentence that says what to do."""


class TableContent(msgspec.Struct, frozen=True):
    """A table's columns in the order of its rows, how many rows it has, and the SHA-256 of its member."""

    columns: list[str]
    rows: int
    sha256: str


class Fingerprints(msgspec.Struct, frozen=True):
    """By which secrets are recognised without being told: scrypt with this salt, hexadecimal."""

    salt: str
    key_pepper: str
    encryption_keys: list[str]


class Manifest(msgspec.Struct, frozen=True):
    """What a backup has. `cost_nano` is the sum over the ledger, in nano-units."""

    format: int
    portico: str
    created_at: datetime
    database: str
    revision: str
    tables: dict[str, TableContent]
    cost_nano: int
    secrets: Fingerprints
    has_secrets: bool

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables.values())


def back_up(config: Config, target: Path, *, passphrase: str | None = None) -> Manifest:
    """Write a backup to `target`, whole or not at all (mode 0600). Raises `BackupError`."""
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "w+b") as file:
            try:
                manifest = _write(config, file, passphrase)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                draft.unlink()
                raise
        draft.replace(target)
    except OSError as error:
        raise BackupError(f"Cannot write {target}: {error.strerror or error}.") from None
    except SQLAlchemyError as error:
        raise BackupError(f"Cannot read the database: {_first_line(error)}.") from None
    return manifest


def restore(config: Config, source: Path, *, passphrase: str | None = None, without_secrets: bool = False) -> Manifest:
    """Load a backup into an empty database and bring it up to this version. Raises `BackupError`, and then nothing is loaded.

    The secrets are those of the settings or of the data folder, which must be those of the backup; if it has none, those of
    the backup are opened with `passphrase`. With `without_secrets` others will do: then keys that were issued and provider
    credentials work no more.
    """
    try:
        with zipfile.ZipFile(source) as archive, _opened(config) as engine:
            manifest = _manifest(archive, source)
            _require_empty(engine, manifest)
            if not without_secrets:
                _provide_secrets(config, archive, manifest, passphrase)
            migrate_to(engine, manifest.revision)
            with engine.begin() as connection:
                _load(connection, archive, manifest)
            migrate_to(engine)
            return manifest
    except OSError as error:
        raise BackupError(f"Cannot read {source}: {error.strerror or error}.") from None
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
        raise BackupError(f"{source} is not a whole backup: {error}.") from None
    except SQLAlchemyError as error:
        raise BackupError(f"The database refused the backup: {_first_line(error)}.") from None


def passphrase_in(path: Path) -> str:
    """The first line of a file. Raises `BackupError` if it has fewer than 12 characters."""
    try:
        phrase = path.read_text().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BackupError(f"Cannot read the passphrase in {path}: {error}.") from None
    if len(phrase) < 12:
        raise BackupError(f"The first line of {path} is the passphrase; it needs at least 12 characters.")
    return phrase


def made_by_itself(folder: Path) -> list[Path]:
    """The backups that `back_up_if_due` made in `folder`, the newest first."""
    return sorted(folder.glob("portico-[0-9]*.zip"), reverse=True)


def back_up_if_due(config: Config) -> Path | None:
    """Make a backup in the folder of the settings if the last one is old enough, and remove those beyond `backup.keep`.

    Returns the new file, or None if there was nothing to do. Raises `BackupError`.
    """
    folder = config.backup_dir
    if folder is None:
        return None
    last = next(iter(made_by_itself(folder)), None)
    if last is not None and clock.now_s() - last.stat().st_mtime < config.backup.every_hours * 3600:
        return None
    target = folder / f"portico-{clock.now():%Y%m%dT%H%M%SZ}.zip"
    phrase = passphrase_in(Path(config.backup.passphrase_file)) if config.backup.passphrase_file else None
    manifest = back_up(config, target, passphrase=phrase)
    for old in made_by_itself(folder)[config.backup.keep :]:
        old.unlink(missing_ok=True)
    log.info("a backup was made", file=str(target), rows=manifest.rows, bytes=target.stat().st_size)
    return target


# Making one


def _write(config: Config, file: IO[bytes], passphrase: str | None) -> Manifest:
    secrets = config.all_secrets()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive, _opened(config) as engine:
        with _snapshot(engine) as connection:
            revision = _revision(connection)
            if revision is None:
                raise BackupError("The database is empty: there is nothing to back up.")
            content = {one.name: _write_table(connection, archive, one) for one in _tables(connection)}
            cost_nano = _cost_nano(connection)
        manifest = Manifest(
            format=FORMAT,
            portico=version(),
            created_at=clock.now(),
            database=engine.dialect.name,
            revision=revision,
            tables=content,
            cost_nano=cost_nano,
            secrets=_fingerprints(secrets, random_source.token_hex(16)),
            has_secrets=passphrase is not None,
        )
        archive.writestr("manifest.json", msgspec.json.format(msgspec.json.encode(manifest)))
        archive.writestr("settings.json", msgspec.json.format(msgspec.json.encode(_shown_settings(config))))
        if passphrase is not None:
            archive.writestr("secrets.sealed", _seal(secrets, passphrase))
        archive.writestr("README.txt", _escrow_note(manifest))
    return manifest


def _write_table(connection: Connection, archive: zipfile.ZipFile, source: TableClause) -> TableContent:
    columns = [cast(one, Text) if isinstance(one.type, JSON) else one for one in source.c]
    rows, digest, encode = 0, hashlib.sha256(), msgspec.json.Encoder().encode
    key = [source.c[name] for name in inspect(connection).get_pk_constraint(source.name)["constrained_columns"]]
    found = connection.execute(select(*columns).order_by(*key), execution_options={"yield_per": CHUNK})
    with archive.open(f"tables/{source.name}", "w", force_zip64=True) as member:
        for chunk in found.partitions():
            lines = b"".join(encode([_neutral(value) for value in row]) + b"\n" for row in chunk)
            digest.update(lines)
            member.write(lines)
            rows += len(chunk)
    return TableContent([one.name for one in source.c], rows, digest.hexdigest())


def _neutral(value: Any) -> Any:
    """A value as every database has it: times in UTC."""
    if isinstance(value, datetime):
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)).isoformat()
    return value


def _shown_settings(config: Config) -> dict[str, Any]:
    """The settings without what is or may hold a secret, for whoever sets the next deployment up."""

    def without_secrets(section: Mapping[str, Any]) -> dict[str, Any]:
        hidden = {name for name, value in section.items() if value is not None and SECRET_SETTING.search(name)}
        return {name: "(set)" if name in hidden else value for name, value in section.items()}

    sections = {name: msgspec.to_builtins(getattr(config, name)) for name in config.__struct_fields__}
    return {name: section if name == "models" else without_secrets(section) for name, section in sections.items()}


def _escrow_note(manifest: Manifest) -> str:
    secrets = (
        "secrets.sealed has these secrets, encrypted with your passphrase. Keep the passphrase elsewhere."
        if manifest.has_secrets
        else "They are not in this file. Keep a copy of secrets.json, or of the settings security.*, elsewhere."
    )
    return f"""A backup of Portico {manifest.portico}, made {manifest.created_at:%Y-%m-%d %H:%M:%S} UTC.

Restore it into an empty deployment:  python -m app restore --from FILE

Without the deployment's own secrets no key that was issued works, and no provider credential can be opened.
{secrets}
"""


# Restoring one


def _manifest(archive: zipfile.ZipFile, source: Path) -> Manifest:
    document = msgspec.json.decode(archive.read("manifest.json"))
    if document.get("format") != FORMAT:
        raise BackupError(f"{source} has the format {document.get('format')}; this version reads {FORMAT}.")
    manifest = msgspec.convert(document, Manifest)
    if not knows_revision(manifest.revision):
        raise BackupError(
            f"{source} was made by Portico {manifest.portico}, which is newer than this version: its database is at"
            f" revision {manifest.revision}. Restore it with that version or a later one."
        )
    return manifest


def _require_empty(engine: Engine, manifest: Manifest) -> None:
    """A database without tables, or with the tables of this backup and nobody in them."""
    with engine.connect() as connection:
        names = inspect(connection).get_table_names()
        revision = _revision(connection)
        people = connection.scalar(text("SELECT count(*) FROM person")) if "person" in names else 0
    if names and (people or revision != manifest.revision):
        raise BackupError("The database is not empty. Restore into a new database or a new data folder.")


def _provide_secrets(config: Config, archive: zipfile.ZipFile, manifest: Manifest, passphrase: str | None) -> None:
    given = config.security
    from_settings = given.session_secret and given.key_pepper and given.encryption_keys
    found = None
    if not from_settings and not config.secrets_file.exists():
        if not manifest.has_secrets:
            raise BackupError(
                f"The backup does not have the deployment's secrets. Put the kept secrets.json to {config.secrets_file}, or"
                " set security.session_secret, security.key_pepper and security.encryption_keys. If they are lost,"
                " --without-secrets restores the rest: every key must be issued anew and every provider credential"
                " entered again."
            )
        if passphrase is None:
            raise BackupError(
                "The backup has the deployment's secrets: give --with-keys and the file of its passphrase."
            )
        found = _unseal(archive.read("secrets.sealed"), passphrase)
    present = _fingerprints(found or config.all_secrets(), manifest.secrets.salt)
    if present.key_pepper != manifest.secrets.key_pepper:
        raise BackupError("The present secrets are not those of the backup: security.key_pepper differs.")
    if missing := set(manifest.secrets.encryption_keys) - set(present.encryption_keys):
        raise BackupError(f"{len(missing)} of the backup's encryption keys are not among the present secrets.")
    if found is not None:
        config.keep_secrets(found)


def _load(connection: Connection, archive: zipfile.ZipFile, manifest: Manifest) -> None:
    tables = _tables(connection)
    if unlike := {one.name for one in tables} ^ set(manifest.tables):
        raise BackupError(f"The backup's tables do not fit its revision: {', '.join(sorted(unlike))}.")
    for one in reversed(tables):  # a migration may have put rows in
        connection.execute(one.delete())
    for one in tables:
        content = manifest.tables[one.name]
        with archive.open(f"tables/{one.name}") as member:
            _load_table(connection, one, content, member)
        if (count := connection.scalar(select(func.count()).select_from(one))) != content.rows:
            raise BackupError(f"{one.name} has {count} rows, and the backup {content.rows}.")
    if (cost_nano := _cost_nano(connection)) != manifest.cost_nano:
        raise BackupError(f"The ledger's sum is {cost_nano}, and the backup's {manifest.cost_nano}.")


def _load_table(connection: Connection, target: TableClause, content: TableContent, lines: Iterable[bytes]) -> None:
    columns = [target.c[name] for name in content.columns]
    is_sqlite = connection.dialect.name == "sqlite"
    into = insert(target).values({one.name: _place(one, is_sqlite) for one in columns})
    digest, decode, rest = hashlib.sha256(), msgspec.json.Decoder(list[Any]).decode, iter(lines)
    while chunk := list(islice(rest, CHUNK)):
        rows = []
        for line in chunk:
            digest.update(line)
            values = zip(columns, decode(line), strict=True)
            rows.append({f"b_{one.name}": _native(one, value, is_sqlite) for one, value in values})
        connection.execute(into, rows)
    if digest.hexdigest() != content.sha256:
        raise BackupError(f"The backup is damaged: {target.name} is not what was written.")
    if not is_sqlite:
        _continue_sequences(connection, target)


def _place(target: ColumnClause[Any], is_sqlite: bool) -> Any:
    """The place of a column's value in an insert; JSON goes in as the text that it was."""
    if isinstance(target.type, JSON):
        place = bindparam(f"b_{target.name}", type_=Text())
        return place if is_sqlite else cast(place, target.type)
    return bindparam(f"b_{target.name}", type_=target.type)


def _native(target: ColumnClause[Any], value: Any, is_sqlite: bool) -> Any:
    if value is not None and isinstance(target.type, DateTime):
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=None) if is_sqlite else moment
    return value


def _continue_sequences(connection: Connection, target: TableClause) -> None:
    """PostgreSQL numbers new rows by a sequence, which does not know of rows that came with a number."""
    for one in target.c:
        names = {"of": f'"{target.name}"', "column": one.name}
        sequence = connection.scalar(text("SELECT pg_get_serial_sequence(:of, :column)"), names)
        last = connection.scalar(select(func.max(one))) if sequence else None
        if last is not None:
            connection.execute(select(func.setval(sequence, last)))


# Both


@contextmanager
def _opened(config: Config) -> Iterator[Engine]:
    """The database itself, without an application, which would make secrets."""
    if config.database_url.startswith("sqlite"):
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = create_engine(config.database_url, connect_args=connect_args(config))
    prepare(engine)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def _snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection that sees the database as it is now, whatever is written meanwhile."""
    with engine.connect() as connection:
        if engine.dialect.name != "sqlite":  # there every transaction is one
            connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with connection.begin():
            yield connection


def _tables(connection: Connection) -> list[TableClause]:
    """Every table but Alembic's, those first that others refer to."""
    inspector = inspect(connection)
    names = [name for name, _ in inspector.get_sorted_table_and_fkc_names() if name and name != VERSIONS]
    return [table(name, *(column(one["name"], one["type"]) for one in inspector.get_columns(name))) for name in names]


def _revision(connection: Connection) -> str | None:
    """The migration that the database is at; None for a database without tables."""
    if VERSIONS not in inspect(connection).get_table_names():
        return None
    return connection.scalar(select(column("version_num")).select_from(table(VERSIONS)))


def _cost_nano(connection: Connection) -> int:
    return int(
        connection.scalar(select(func.coalesce(func.sum(column("cost_nano")), 0)).select_from(table(LEDGER))) or 0
    )


def _fingerprints(secrets: Mapping[str, Any], salt: str) -> Fingerprints:
    def of(secret: str) -> str:
        return hashlib.scrypt(secret.encode(), salt=bytes.fromhex(salt), n=COST_FACTOR, r=8, p=1, dklen=16).hex()

    return Fingerprints(salt, of(secrets["key_pepper"]), [of(key) for key in secrets["encryption_keys"]])


def _seal(secrets: Mapping[str, Any], passphrase: str) -> bytes:
    salt = random_source.token_bytes(16)
    return salt.hex().encode() + b"\n" + _cipher(passphrase, salt).encrypt(msgspec.json.encode(secrets))


def _unseal(sealed: bytes, passphrase: str) -> dict[str, Any]:
    salt, _, token = sealed.partition(b"\n")
    try:
        opened = _cipher(passphrase, bytes.fromhex(salt.decode())).decrypt(token)
    except InvalidToken:
        raise BackupError("The passphrase does not open the backup's secrets.") from None
    return msgspec.json.decode(opened, type=dict[str, Any])


def _cipher(passphrase: str, salt: bytes) -> Fernet:
    return Fernet(urlsafe_b64encode(hashlib.scrypt(passphrase.encode(), salt=salt, n=COST_FACTOR, r=8, p=1, dklen=32)))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
