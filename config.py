"""Portico's settings: `asset/config.yml`, overridden by `CONFIG_<SECTION>_<KEY>`, typed by the schema below.

The same few lines answer every process of the Procfile, so that all of them agree on addresses and secrets.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets as random_source
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import yaml
from cryptography.fernet import Fernet

ROOT = Path(__file__).resolve().parent
DEFAULT_FILE = ROOT / "asset" / "config.yml"

Door = Literal["v1", "portal", "admin", "api", "public"]
DOORS: tuple[Door, ...] = get_args(Door)


class ConfigError(Exception):
    """A setting that Portico will not start with; the message names its path and what was expected."""


PICTURES = (".svg", ".png", ".jpg", ".jpeg", ".webp")


class Section(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """A section of the settings; an unknown key is an error."""


Origin = Annotated[str, msgspec.Meta(pattern=r"^https?://[A-Za-z0-9.:\[\]-]+$", max_length=300)]


class Server(Section, frozen=True):
    environment: Literal["development", "production"] = "development"
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int | None = None  # gunicorn web workers; one a core, at most 4
    doors: list[Door] = msgspec.field(default_factory=lambda: list(DOORS))
    public_url: str | None = None  # what people type, the base of every link; required in production
    static_url: str | None = None  # a prefix for static files, where a CDN serves them
    trusted_proxies: int = 0  # how many proxies in front may be believed about the client's address
    max_body_mb: int = 32  # the largest request body of /v1
    body_timeout_s: float = 30.0  # a request body must have arrived within this
    drain_s: float = 20.0  # how long a stopping worker lets streams run on
    cors_origins: list[Origin] = []  # whose pages may read what /v1 answers, such as "https://app.example.com"
    fast_lane: bool = True  # the busiest routes of /v1 go around Flask, to the same endpoints


class Storage(Section, frozen=True):
    data_dir: str = "instance"
    embedded: bool | None = None  # production refuses the embedded stores unless this is true


class Database(Section, frozen=True):
    url: str | None = None
    pooler: bool = False  # a pooler in transaction mode stands between: nothing is prepared in a connection


class Redis(Section, frozen=True):
    url: str | None = None


class Auth(Section, frozen=True):
    admin_username: str = "admin"
    admin_password: str | None = None
    secure_cookies: bool | None = None  # TLS-only cookies; true in production
    session_hours: float = 12.0
    access_token_minutes: float = 30.0
    refresh_token_days: float = 30.0
    long_lived_token_days: float = 180.0
    local: bool = True  # whether people can sign in with passwords; false needs `oidc.issuer`


SIGNATURES = (  # of asymmetric keys: with a shared one, whoever checks a token could also make it
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA",
)  # fmt: skip


class Oidc(Section, frozen=True):
    """The identity provider that people sign in with; without an issuer there is none."""

    issuer: str | None = None
    client_id: str | None = None
    client_secret: str | None = None  # none for a public client
    name: str = "single sign-on"  # "Sign in with ..."
    scopes: list[str] = msgspec.field(default_factory=lambda: ["openid", "profile", "email"])
    algorithms: list[str] = msgspec.field(default_factory=lambda: ["RS256"])
    username_claim: str = "preferred_username"
    groups_claim: str = "groups"
    # Members of these have that role; if both are empty, the provider does not own roles.
    admin_groups: list[str] = msgspec.field(default_factory=list)
    readonly_groups: list[str] = msgspec.field(default_factory=list)
    team_groups: dict[str, str] = msgspec.field(default_factory=dict)  # group -> name of a team
    preset: Literal["openshift"] | None = None  # OAuth without OpenID Connect
    api_url: str | None = None  # the cluster's API, for that preset


class LiteLLM(Section, frozen=True):
    """The LiteLLM that Portico is kept in step with; without both, an admin can enter one."""

    url: str | None = None
    master_key: str | None = None


class Scim(Section, frozen=True):
    """Provisioning of people and teams by SCIM 2.0; without a token there is none."""

    token: str | None = None


class Security(Section, frozen=True):
    """Secrets; unset ones are made at the first start and kept below the data folder, readable by the owner alone."""

    session_secret: str | None = None
    key_pepper: str | None = None
    encryption_keys: list[str] | None = None  # newest first; Fernet keys
    encryption_key_days: Annotated[int, msgspec.Meta(ge=0, le=3650)] = 90  # a key of that age is replaced; 0: never
    audit_key: str | None = None  # chains the audit log; without it a change of that log can't be hidden


class Demo(Section, frozen=True):
    enabled: bool | None = None  # true in development


class Metrics(Section, frozen=True):
    allow: list[str] = msgspec.field(default_factory=list)  # addresses or networks beside loopback


class Upstream(Section, frozen=True):
    allow_private: bool | None = None  # true in development
    # The environment variables that a provider's `api_key_env` may name, in full or with a * before or after.
    env: list[str] = msgspec.field(default_factory=lambda: ["UPSTREAM_*", "*_KEY", "*_TOKEN"])
    # Seconds between two looks at each provider's list of models, by which its health is known; 0 for none.
    list_every_s: Annotated[int, msgspec.Meta(ge=0, le=86_400)] = 300


class Gateway(Section, frozen=True):
    default_model: str | None = None  # serves the names that no model has, as a model's name or as another name of it
    # After so much silence of an upstream a stream gives a sign of life.
    keep_alive_s: Annotated[float, msgspec.Meta(ge=0.05, le=300)] = 15.0
    # What a spent budget answers where OpenAI's dialect is spoken. Some clients repeat every 429 and show no message.
    budget_stop_status: Literal[402, 429] = 429
    # After so much silence before the first byte a stream's status is sent, so that it can give signs of life; 0 for never.
    commit_after_s: Annotated[float, msgspec.Meta(ge=0, le=300)] = 25.0


Days = Annotated[int, msgspec.Meta(ge=0, le=3650)]


class Keys(Section, frozen=True):
    default_lifetime_days: Days = 90  # of a new key that says nothing of its end; 0 for none
    max_lifetime_days: Days = 0  # the longest that a key may be given; 0 for no maximum


class Portal(Section, frozen=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)] = "Portico"
    banner: Annotated[str, msgspec.Meta(max_length=200)] | None = None  # one line above every page
    currency: str = "USD"
    logo: str | None = None  # a picture file to show instead of Portico's own mark
    logo_dark: str | None = None  # the same for the dark look
    status_page: bool = False  # /status tells everyone, without signing in, how the open models do


class Mail(Section, frozen=True):
    """Where notices leave by e-mail; without a host none do."""

    host: str | None = None
    port: int = 587
    username: str | None = None
    password: str | None = None
    sender: str = "portico@localhost"
    security: Literal["starttls", "tls", "none"] = "starttls"


class Webhook(Section, frozen=True):
    """Where the deployment is told what happens, signed with the secret; without an address nowhere."""

    url: str | None = None
    secret: str | None = None


class ConfiguredModel(Section, frozen=True):
    """A model of a Triton server, made at the start unless there is one of its name."""

    host: str  # or a whole address, such as grpcs://triton.example.com
    port: int = 8001
    type: Literal["chat", "embeddings", "transcription", "grpc", "http"] = "chat"
    args: dict[str, Any] = msgspec.field(default_factory=dict)  # how it is asked
    response: dict[str, str] | str = msgspec.field(default_factory=dict)  # the names of its outputs, or of the main one


Threshold = Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]


class Alerts(Section, frozen=True):
    """Beyond which figures admins are notified of the deployment itself; 0 switches one off."""

    error_percent: Threshold = 5.0  # of the calls of 5 minutes
    first_token_s: Threshold = 15.0  # 95th percentile of the calls of 5 minutes
    usage_lag_s: Threshold = 60.0
    disk_free_percent: Threshold = 10.0
    providers: bool = True  # one that is failing
    after_minutes: Threshold = 3.0  # how long it must have been so


class Backup(Section, frozen=True):
    """Backups that the worker makes by itself; without a folder none."""

    folder: str | None = None
    every_hours: Annotated[float, msgspec.Meta(gt=0, le=24 * 31)] = 24.0
    keep: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 14  # how many of them stay
    passphrase_file: str | None = None  # with it each backup also has the secrets, encrypted


LogLevel = Literal["debug", "info", "warning", "error"]
LogComponent = Literal["gateway", "providers", "portal", "api", "jobs", "sync", "identity", "audit"]


class Log(Section, frozen=True):
    level: LogLevel = "info"
    levels: dict[LogComponent, LogLevel] = msgspec.field(default_factory=dict)  # of single components
    sinks: list[Literal["console", "file", "database"]] = msgspec.field(default_factory=lambda: ["console", "database"])
    retention_days: Annotated[int, msgspec.Meta(ge=1, le=3650)] = 30  # of the lines in the database


class Secrets(msgspec.Struct, frozen=True):
    """The deployment's own secrets, in the clear, in memory only."""

    session_secret: str
    key_pepper: bytes
    encryption_keys: tuple[bytes, ...]
    audit_key: bytes


_ORIGIN = re.compile(r"https?://[\w.:\[\]-]{1,255}", re.ASCII)


class Config(Section, frozen=True):
    """All settings, read once at the start of a process."""

    server: Server = Server()
    storage: Storage = Storage()
    database: Database = Database()
    redis: Redis = Redis()
    auth: Auth = Auth()
    oidc: Oidc = Oidc()
    scim: Scim = Scim()
    litellm: LiteLLM = LiteLLM()
    security: Security = Security()
    demo: Demo = Demo()
    metrics: Metrics = Metrics()
    upstream: Upstream = Upstream()
    gateway: Gateway = Gateway()
    keys: Keys = Keys()
    portal: Portal = Portal()
    mail: Mail = Mail()
    webhook: Webhook = Webhook()
    log: Log = Log()
    alerts: Alerts = Alerts()
    backup: Backup = Backup()
    models: dict[str, ConfiguredModel] = msgspec.field(default_factory=dict)
    decided: dict[str, Literal["file", "environment"]] = {}  # the keys that somebody set, and where; `load` fills it

    def with_stored(self, stored: Mapping[str, Any]) -> Config:
        """These settings with those that admins have stored, by key ("portal.name"). What the file or the environment
        decides stays."""
        sections: dict[str, dict[str, Any]] = {}
        for key, value in stored.items():
            if key not in self.decided:
                section, _, name = key.partition(".")
                sections.setdefault(section, {})[name] = value
        changed = {name: msgspec.structs.replace(getattr(self, name), **keys) for name, keys in sections.items()}
        return msgspec.structs.replace(self, **changed) if changed else self

    @property
    def production(self) -> bool:
        return self.server.environment == "production"

    @property
    def data_dir(self) -> Path:
        return (ROOT / self.storage.data_dir).resolve()

    @property
    def spool_dir(self) -> Path:
        return self.data_dir / "spool"

    @property
    def secrets_file(self) -> Path:
        return self.data_dir / "secrets.json"

    @property
    def logos(self) -> dict[str, Path]:
        """The deployment's own pictures, `logo` and `logo_dark`, those that there are."""
        told = {"logo": self.portal.logo, "logo_dark": self.portal.logo_dark}
        return {name: ROOT / file for name, file in told.items() if file}

    @property
    def workers(self) -> int:
        return self.server.workers or min(4, os.cpu_count() or 1)

    @property
    def database_url(self) -> str:
        """An SQLAlchemy URL; plain `postgresql://` is read as psycopg 3's."""
        url = self.database.url or f"sqlite:///{self.data_dir / 'portico.db'}"
        for plain in ("postgresql://", "postgres://"):
            if url.startswith(plain):
                return "postgresql+psycopg://" + url.removeprefix(plain)
        return url

    @property
    def backup_dir(self) -> Path | None:
        return (ROOT / self.backup.folder).resolve() if self.backup.folder else None

    @property
    def redis_embedded(self) -> bool:
        return self.redis.url is None

    @property
    def redis_socket(self) -> Path:
        """Where the embedded Valkey listens; short, because a socket's path may have about 100 characters."""
        path = self.data_dir / "valkey" / "valkey.sock"
        if len(str(path)) < 100:
            return path
        name = hashlib.sha256(str(self.data_dir).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"portico-{os.getuid()}-{name}" / "valkey.sock"

    @property
    def redis_url(self) -> str:
        return self.redis.url or f"unix://{self.redis_socket}?db=0"

    @property
    def stores(self) -> list[tuple[str, int]]:
        """Host and port of the database and of Redis, those that are reached over TCP."""
        found = sentinels(self.redis_url)
        redis = urlsplit(self.redis_url)
        if not found and redis.scheme != "unix" and redis.hostname:
            found.append((unquote(redis.hostname), redis.port or 6379))
        database = urlsplit(self.database_url)
        if database.scheme.startswith("postgresql"):
            query = parse_qs(database.query)
            ports = [port for text in query.get("port", ()) for port in text.split(",")] or [str(database.port or 5432)]
            hosts = [host for name in ("host", "hostaddr") for text in query.get(name, ()) for host in text.split(",")]
            for position, place in enumerate(hosts or [unquote(database.hostname or "")]):
                host, _, port = place.rpartition(":") if place.count(":") == 1 else (place, "", "")
                port = port or ports[position % len(ports)]
                if host and not host.startswith("/") and port.isdecimal():  # a path is a socket's folder
                    found.append((host, int(port)))
        return found

    @property
    def secure_cookies(self) -> bool:
        return self.production if self.auth.secure_cookies is None else self.auth.secure_cookies

    @property
    def demo_enabled(self) -> bool:
        return not self.production if self.demo.enabled is None else self.demo.enabled

    @property
    def allow_private_upstreams(self) -> bool:
        return not self.production if self.upstream.allow_private is None else self.upstream.allow_private

    @property
    def base_url(self) -> str:
        """The address people and programs use, without a trailing slash."""
        if self.server.public_url:
            return self.server.public_url.rstrip("/")
        host = "localhost" if self.server.host in ("127.0.0.1", "0.0.0.0", "::", "::1") else self.server.host
        return f"http://{host}:{self.server.port}"

    def origin_asked(self, asked: str) -> str:
        """The beginning of a link for somebody who asked under `asked`, scheme and host: the public address, or without one
        what was asked, if it is an address at all. In production there is always a public one."""
        return self.base_url if self.server.public_url or not _ORIGIN.fullmatch(asked) else asked

    def secrets(self) -> Secrets:
        """The deployment's secrets: settings first, else the file below the data folder, made when missing.

        Where all others come from the settings, the audit log's key is derived from the pepper, so that every host has the
        same.
        """
        kept = self.security
        if kept.session_secret and kept.key_pepper and kept.encryption_keys:
            audit_key = kept.audit_key or hmac.digest(kept.key_pepper.encode(), b"audit log", "sha256").hex()
            return _secrets(kept.session_secret, kept.key_pepper, kept.encryption_keys, audit_key)
        made = _kept_secrets(self.secrets_file, self.server.environment)
        if self.production and made["environment"] != "production":
            raise ConfigError(
                f"{self.secrets_file} was made by a development start. Set"
                " CONFIG_SECURITY_SESSION_SECRET, CONFIG_SECURITY_KEY_PEPPER and CONFIG_SECURITY_ENCRYPTION_KEYS,"
                " or start production with a data folder of its own (CONFIG_STORAGE_DATA_DIR)."
            )
        return _secrets(
            kept.session_secret or made["session_secret"],
            kept.key_pepper or made["key_pepper"],
            kept.encryption_keys or made["encryption_keys"],
            kept.audit_key or made["audit_key"],
        )

    def encryption_keys(self) -> tuple[bytes, ...]:
        """The encryption keys as they are now, after a rotation perhaps: the active one first. It makes none. Raises `OSError`
        or `ValueError` where the file cannot be read."""
        kept = self.security.encryption_keys or json.loads(self.secrets_file.read_text())["encryption_keys"]
        return tuple(key.encode() for key in kept)

    def all_secrets(self) -> dict[str, Any]:
        """What `secrets.json` has or would have, with those of the settings laid over it: all that a backup's secrets need."""
        self.secrets()
        kept = json.loads(self.secrets_file.read_text()) if self.secrets_file.exists() else {}
        given = {name: value for name in MADE_SECRETS if (value := getattr(self.security, name)) is not None}
        return {"environment": self.server.environment} | kept | given

    def keep_secrets(self, secrets: Mapping[str, Any]) -> None:
        """Writes `secrets.json` (mode 0600) unless there is one."""

        def fill(kept: dict[str, Any]) -> None:
            if not kept:
                kept.update(secrets)

        change_kept_secrets(self.secrets_file, fill)


def _secrets(session_secret: str, key_pepper: str, encryption_keys: list[str], audit_key: str) -> Secrets:
    for key in encryption_keys:
        try:
            Fernet(key)
        except ValueError:
            raise ConfigError("security.encryption_keys: expected 32 url-safe base64-encoded bytes each") from None
    keys = tuple(key.encode() for key in encryption_keys)
    return Secrets(session_secret, key_pepper.encode(), keys, audit_key.encode())


MADE_SECRETS = ("session_secret", "key_pepper", "audit_key", "encryption_keys")  # where the settings give none


def _kept_secrets(path: Path, environment: str) -> dict[str, Any]:
    """The secrets kept in `path` (mode 0600). Those that are missing are made, once."""

    def fill(kept: dict[str, Any]) -> None:
        kept.setdefault("environment", environment)
        for name in ("session_secret", "key_pepper", "audit_key"):
            kept.setdefault(name, random_source.token_urlsafe(48))
        kept.setdefault("encryption_keys", [Fernet.generate_key().decode()])

    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    complete = kept.keys() >= {"environment", *MADE_SECRETS}
    return kept if complete else change_kept_secrets(path, fill)


def change_kept_secrets(path: Path, change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Let `change` edit the secrets kept in `path` and return them. Readers see the file as it was or as it is, never
    half of it; writers take turns. Raises `ConfigError` where the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
            change(kept)
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            draft.unlink(missing_ok=True)  # of a process of this number that was killed
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump(kept, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigError(f"storage.data_dir: cannot write {path}: {error.strerror}") from None
    return kept


def _write_once(path: Path, document: Mapping[str, Any]) -> None:
    """A file that only its owner reads (mode 0600). It appears whole or not at all, and only once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(document, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)  # fails if another process was first, whose secrets then hold
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def load(environ: Mapping[str, str] | None = None) -> Config:
    """Read the settings file and the environment; raises `ConfigError` with the path of the first wrong key."""
    environ = os.environ if environ is None else environ
    path = Path(environ.get("CONFIG_FILE") or DEFAULT_FILE)
    try:
        document = yaml.safe_load(path.read_text()) if path.exists() or "CONFIG_FILE" in environ else None
    except OSError as error:
        raise ConfigError(f"CONFIG_FILE: cannot read {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    if not isinstance(document, dict | None):
        raise ConfigError(f"{path}: expected sections, such as `server:`, at the top level")
    settings: dict[str, Any] = {name: dict(keys or {}) if isinstance(keys, dict | None) else keys
                                for name, keys in (document or {}).items()}  # fmt: skip
    if "decided" in settings:
        raise ConfigError("decided: unknown setting")
    decided = {f"{name}.{key}": "file" for name, keys in settings.items() if isinstance(keys, dict) for key in keys}
    decided |= dict.fromkeys(_override(settings, environ), "environment")
    try:
        config = msgspec.convert({**settings, "decided": decided}, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(error)) from None
    _check(config)
    return config


def _override(settings: dict[str, Any], environ: Mapping[str, str]) -> list[str]:
    """Lay `CONFIG_<SECTION>_<KEY>` over the file; return the keys. Names of sections we do not have belong to other
    programs."""
    sections = {field.name: field.type for field in msgspec.structs.fields(Config) if isinstance(field.type, type)}
    decided = []
    for name, text in environ.items():
        if not name.startswith("CONFIG_"):
            continue
        section, _, key = name.removeprefix("CONFIG_").lower().partition("_")
        if section not in sections or not key:
            continue
        kinds = {field.name: field.type for field in msgspec.structs.fields(sections[section])}
        if key not in kinds:
            raise ConfigError(f"{name}: unknown setting {section}.{key}; known are {', '.join(sorted(kinds))}")
        keys = settings.setdefault(section, {})
        if isinstance(keys, dict):
            keys[key] = _typed(text, kinds[key], name)
            decided.append(f"{section}.{key}")
    return decided


def _typed(text: str, kind: Any, name: str) -> Any:
    """One environment value: text stays text, lists may be written `a,b`, the rest is read as YAML."""
    options = _options(kind)
    if str in options or get_origin(kind) is Literal and all(isinstance(option, str) for option in get_args(kind)):
        return text
    is_list = any(get_origin(option) is list for option in options)
    if is_list and not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{name}: {text!r} cannot be read") from None


def _options(kind: Any) -> set[Any]:
    """The types that a setting may have, without their bounds."""
    if get_origin(kind) is Annotated:
        return _options(get_args(kind)[0])
    if isinstance(kind, UnionType) or get_origin(kind) is Union:
        return {option for one in get_args(kind) for option in _options(one)}
    return {kind}


def is_sentinel(url: str) -> bool:
    """Whether a Redis URL names Sentinels and not a server."""
    return url.partition(":")[0] in ("redis+sentinel", "rediss+sentinel")


def sentinels(url: str) -> list[tuple[str, int]]:
    """Hosts and ports of the Sentinels in a Redis URL; none in others."""
    if not is_sentinel(url):
        return []
    places = urlsplit(url).netloc.rpartition("@")[2].split(",")
    return [(host, int(port or 26379)) for host, _, port in (place.partition(":") for place in places)]


def _is_address(url: str) -> bool:
    """Whether it is an http(s) address in printable ASCII."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return bool(re.fullmatch("[!-~]+", url) and parts.scheme in ("http", "https") and parts.hostname and port != 0)


def _explain(error: msgspec.ValidationError) -> str:
    """msgspec's message as `path: what was expected`."""
    message, _, path = str(error).partition(" - at `$.")
    if unknown := re.fullmatch("Object contains unknown field `(.*)`", message):
        return f"{'.'.join(part for part in (path.rstrip('`'), unknown[1]) if part)}: unknown setting"
    return f"{path.rstrip('`') or 'settings'}: {message[:1].lower()}{message[1:]}"


def _check_sign_in(config: Config) -> None:
    oidc = config.oidc
    for name, url in (("oidc.issuer", oidc.issuer), ("oidc.api_url", oidc.api_url)):
        if not url:
            continue
        if not _is_address(url) or set("?#@") & set(url):
            raise ConfigError(f"{name}: expected an address such as https://login.example.com")
        if config.production and not url.startswith("https://") and not is_loopback(url):
            raise ConfigError(f"{name}: expected https in production")
    if oidc.issuer and not oidc.client_id:
        raise ConfigError("oidc.client_id: expected with oidc.issuer: the name under which the provider knows Portico")
    if not oidc.algorithms or not set(oidc.algorithms) <= set(SIGNATURES):
        raise ConfigError(f"oidc.algorithms: expected some of {', '.join(SIGNATURES)}; never none or HS*")
    if oidc.preset is None and "openid" not in oidc.scopes:
        raise ConfigError("oidc.scopes: expected openid among them")
    if oidc.preset == "openshift" and not oidc.api_url:
        raise ConfigError("oidc.api_url: expected with the preset openshift: the address of the cluster's API")
    if not config.auth.local and not oidc.issuer:
        raise ConfigError("auth.local: without passwords nobody could sign in. Set oidc.issuer first")
    if config.scim.token is not None and (len(config.scim.token) < 32 or not config.scim.token.isascii()):
        raise ConfigError("scim.token: expected at least 32 ASCII characters")


def is_loopback(url: str) -> bool:
    """Whether an address leads to this machine by a name or number that says so."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or bool(re.fullmatch(r"127(\.\d{1,3}){3}", host))


def _check(config: Config) -> None:
    """What the types cannot say."""
    if not 1 <= config.server.port <= 65535:
        raise ConfigError("server.port: expected 1 to 65535")
    if config.server.workers is not None and not 1 <= config.server.workers <= 64:
        raise ConfigError("server.workers: expected 1 to 64")
    if not config.server.doors:
        raise ConfigError(f"server.doors: expected at least one of {', '.join(DOORS)}")
    addresses = {
        "server.public_url": config.server.public_url,
        "server.static_url": config.server.static_url,
        "webhook.url": config.webhook.url,
    }
    for name, url in addresses.items():
        if url and not _is_address(url):
            raise ConfigError(f"{name}: expected an address such as https://portal.example.com")
    if is_sentinel(config.redis_url) and not re.fullmatch(
        r"rediss?\+sentinel://([^@/]*@)?[\w.-]+(:\d{1,5})?(,[\w.-]+(:\d{1,5})?)*/[\w.-]+(/\d+)?(\?sentinel_password=[^&]*)?",
        config.redis_url,
    ):
        raise ConfigError("redis.url: expected Sentinels as redis+sentinel://:password@host:26379,host:26379/name")
    for name in ("server.public_url", "server.static_url"):
        if set("?#@;") & set(addresses[name] or ""):
            raise ConfigError(f"{name}: expected an address without user, query or fragment")
    if not config.mail.sender.isprintable() or "@" not in config.mail.sender:
        raise ConfigError("mail.sender: expected an e-mail address such as portico@example.com")
    for pattern in config.upstream.env:
        if not re.fullmatch(r"\*?[A-Za-z_][A-Za-z0-9_]*|[A-Za-z_][A-Za-z0-9_]*\*", pattern):
            raise ConfigError("upstream.env: expected names of variables, with at most one * before or after each")
    for name, model in config.models.items():
        if not 1 <= model.port <= 65535:
            raise ConfigError(f"models.{name}.port: expected 1 to 65535")
    password = config.auth.admin_password
    if password is not None and len(password) < 12:
        raise ConfigError("auth.admin_password: expected at least 12 characters")
    _check_sign_in(config)
    for name, file in config.logos.items():
        if file.suffix.lower() not in PICTURES or not file.is_file():
            raise ConfigError(f"portal.{name}: expected a file that exists and ends with {', '.join(PICTURES)}")
    if not config.production:
        return
    for name in ("session_secret", "key_pepper"):
        secret = getattr(config.security, name)
        if secret is not None and (len(secret) < 32 or len(set(secret)) < 10):
            raise ConfigError(f"security.{name}: expected at least 32 random characters in production, such as what"
                              " `openssl rand -base64 48` prints")  # fmt: skip
    if not config.server.public_url:
        raise ConfigError(
            "server.public_url: expected in production: links in pages and mail are built on it, never on what a request"
            " says of itself. Set CONFIG_SERVER_PUBLIC_URL, such as https://portal.example.com"
        )
    if not config.secure_cookies:
        raise ConfigError("auth.secure_cookies: expected true in production: sessions travel over TLS only")
    if (config.redis.url is None or config.database.url is None) and not config.storage.embedded:
        raise ConfigError(
            "database.url, redis.url: expected external stores in production; set both, or accept the embedded"
            " ones with CONFIG_STORAGE_EMBEDDED=true"
        )
