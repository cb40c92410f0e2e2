"""Settings: what stops a start and with which words, and the secrets that every process must agree on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from config import DEFAULT_FILE, DOORS, ROOT, Config, ConfigError, load

PRODUCTION = {
    "CONFIG_SERVER_ENVIRONMENT": "production",
    "CONFIG_SERVER_PUBLIC_URL": "https://portal.example.com/",
    "CONFIG_DATABASE_URL": "postgresql://db/portico",
    "CONFIG_REDIS_URL": "redis://cache:6379/0",
}


def from_file(folder: Path, text: str, **environ: str) -> Config:
    path = folder / "config.yml"
    path.write_text(text)
    return load({"CONFIG_FILE": str(path), **environ})


def test_the_shipped_file_holds_the_documented_defaults() -> None:
    config = load({})
    assert (config.server.environment, config.server.host, config.server.port) == ("development", "127.0.0.1", 8000)
    assert config.data_dir == ROOT / "instance"
    assert config.database_url == f"sqlite:///{ROOT / 'instance' / 'portico.db'}"
    assert config.redis_embedded and config.redis_url == f"unix://{config.redis_socket}?db=0"
    assert config.server.doors == list(DOORS)
    assert config.demo_enabled and config.allow_private_upstreams and not config.secure_cookies
    assert config.base_url == "http://localhost:8000"
    assert DEFAULT_FILE.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server: {prot: 8080}", "server.prot: unknown setting"),
        ("severs: {port: 8080}", "severs: unknown setting"),
        ("server: {port: many}", "server.port: expected `int`, got `str`"),
        ("server: {port: 0}", "server.port: expected 1 to 65535"),
        ("server: {doors: [v1, cellar]}", "server.doors[1]: invalid enum value 'cellar'"),
        ("server: {environment: staging}", "server.environment: invalid enum value 'staging'"),
        ("server: 8080", "server: expected `object`, got `int`"),
        ("auth: {admin_password: short}", "auth.admin_password: expected at least 12 characters"),
    ],
)
def test_a_wrong_key_of_the_file_is_named_by_its_path(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        from_file(tmp_path, text)
    assert str(refused.value) == message


@pytest.mark.parametrize("text", ["- server", "words", "server: [", "\x00"])
def test_a_file_that_is_not_sections_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"config\.yml"):
        from_file(tmp_path, text)


@pytest.mark.parametrize("name", ["ours.txt", "missing.svg", "."])
def test_a_logo_is_a_picture_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "ours.txt").write_text("no picture")
    with pytest.raises(ConfigError, match=r"portal\.logo_dark: expected a file"):
        load({"CONFIG_PORTAL_LOGO_DARK": str(tmp_path / name)})


PROVIDER = {"CONFIG_OIDC_ISSUER": "https://id.example", "CONFIG_OIDC_CLIENT_ID": "portico"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"CONFIG_OIDC_ISSUER": "id.example"}, "oidc.issuer: expected an address"),
        ({"CONFIG_OIDC_CLIENT_ID": ""}, "oidc.client_id: expected with oidc.issuer"),
        ({"CONFIG_OIDC_ALGORITHMS": "RS256,none"}, "oidc.algorithms: expected some of"),
        ({"CONFIG_OIDC_ALGORITHMS": "HS256"}, "oidc.algorithms: expected some of"),
        ({"CONFIG_OIDC_ALGORITHMS": ""}, "oidc.algorithms: expected some of"),
        ({"CONFIG_OIDC_SCOPES": "profile"}, "oidc.scopes: expected openid"),
        ({"CONFIG_OIDC_PRESET": "openshift"}, "oidc.api_url: expected with the preset"),
        ({"CONFIG_OIDC_PRESET": "other"}, "oidc.preset: "),
        ({"CONFIG_OIDC_ISSUER": "", "CONFIG_AUTH_LOCAL": "false"}, "auth.local: without passwords"),
        ({"CONFIG_SCIM_TOKEN": "short"}, "scim.token: expected at least 32"),
    ],
)
def test_settings_with_which_nobody_could_sign_in_safely_stop_the_start(more: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(PROVIDER | more)


def test_a_provider_without_tls_is_for_development_and_for_loopback() -> None:
    plain = PROVIDER | {"CONFIG_OIDC_ISSUER": "http://id.example"}
    assert load(plain).oidc.issuer == "http://id.example"
    with pytest.raises(ConfigError, match=r"oidc\.issuer: expected https in production"):
        load(PRODUCTION | plain)
    assert load(PRODUCTION | PROVIDER | {"CONFIG_OIDC_ISSUER": "http://127.0.0.1:9000"}).oidc.issuer


def test_groups_are_mapped_to_teams_by_a_setting() -> None:
    config = load(PROVIDER | {"CONFIG_OIDC_TEAM_GROUPS": "{ml: Machine learning}", "CONFIG_OIDC_ADMIN_GROUPS": "a, b"})
    assert config.oidc.team_groups == {"ml": "Machine learning"}
    assert config.oidc.admin_groups == ["a", "b"]


def test_a_named_file_must_exist() -> None:
    with pytest.raises(ConfigError, match=r"CONFIG_FILE: cannot read /nowhere/config\.yml"):
        load({"CONFIG_FILE": "/nowhere/config.yml"})


@pytest.mark.parametrize("text", ["", "server:", "# nothing"])
def test_an_empty_file_or_section_means_the_defaults(tmp_path: Path, text: str) -> None:
    assert from_file(tmp_path, text) == from_file(tmp_path, "{}")


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    config = from_file(tmp_path, "server: {port: 1, host: a}\nportal: {name: File}", CONFIG_SERVER_PORT="8080",
                       CONFIG_PORTAL_NAME="123")  # fmt: skip
    assert (config.server.port, config.server.host, config.portal.name) == (8080, "a", "123")
    assert load({"CONFIG_GATEWAY_BUDGET_STOP_STATUS": "402"}).gateway.budget_stop_status == 402


@pytest.mark.parametrize("written", ["v1,api", " v1 , api ,", "[v1, api]", '["v1", "api"]'])
def test_lists_of_the_environment_are_written_with_commas_or_as_yaml(written: str) -> None:
    assert load({"CONFIG_SERVER_DOORS": written}).server.doors == ["v1", "api"]


def test_lists_of_texts_are_lists_too() -> None:
    assert load({"CONFIG_METRICS_ALLOW": "10.0.0.0/8,192.168.1.1"}).metrics.allow == ["10.0.0.0/8", "192.168.1.1"]


def test_keys_with_underscores_are_unambiguous() -> None:
    config = load({"CONFIG_STORAGE_DATA_DIR": "/data", "CONFIG_SERVER_BODY_TIMEOUT_S": "2.5"})
    assert config.data_dir == Path("/data") and config.server.body_timeout_s == 2.5


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CONFIG_SERVER_PROT", "1", "CONFIG_SERVER_PROT: unknown setting server.prot"),
        ("CONFIG_SERVER_PORT", "many", "server.port: expected `int`, got `str`"),
        ("CONFIG_SERVER_WORKERS", "0", "server.workers: expected 1 to 64"),
        ("CONFIG_GATEWAY_BUDGET_STOP_STATUS", "500", "gateway.budget_stop_status: invalid enum value 500"),
        ("CONFIG_DEMO_ENABLED", "perhaps", "demo.enabled: expected `bool | null`, got `str`"),
        ("CONFIG_SERVER_DOORS", "[", "CONFIG_SERVER_DOORS: '[' cannot be read"),
        ("CONFIG_SERVER_DOORS", "", "server.doors: expected at least one of"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load({name: value})
    assert str(refused.value).startswith(message)


def test_variables_of_other_programs_are_left_alone() -> None:
    assert load({"CONFIG_SHELL": "/bin/sh", "CONFIG_SITE": "x", "CONFIG_": "y"}) == load({})


def test_a_long_data_folder_still_has_a_short_socket() -> None:
    config = load({"CONFIG_STORAGE_DATA_DIR": "/" + "long/" * 40})
    assert len(str(config.redis_socket)) < 100
    other = load({"CONFIG_STORAGE_DATA_DIR": "/" + "long/" * 41})
    assert config.redis_socket != other.redis_socket


@pytest.mark.parametrize(("given", "used"), [
    ("postgresql://u@h/d", "postgresql+psycopg://u@h/d"), ("postgres://u@h/d", "postgresql+psycopg://u@h/d"),
    ("postgresql+psycopg://u@h/d", "postgresql+psycopg://u@h/d"), ("sqlite:////d/x.db", "sqlite:////d/x.db"),
])  # fmt: skip
def test_a_plain_postgresql_address_is_read_as_psycopgs(given: str, used: str) -> None:
    assert load({"CONFIG_DATABASE_URL": given}).database_url == used


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"CONFIG_AUTH_SECURE_COOKIES": "false"}, "auth.secure_cookies"),
        ({"CONFIG_REDIS_URL": ""}, "redis.url"),
        ({"CONFIG_DATABASE_URL": ""}, "database.url"),
        ({"CONFIG_SERVER_PUBLIC_URL": ""}, "server.public_url"),
    ],
)
def test_production_refuses_what_is_for_development(more: dict[str, str], message: str) -> None:
    environ = {name: value for name, value in (PRODUCTION | more).items() if value}
    with pytest.raises(ConfigError, match=message):
        load(environ)


def test_production_starts_on_external_stores_or_on_accepted_embedded_ones() -> None:
    config = load(PRODUCTION)
    assert config.production and config.secure_cookies and not config.demo_enabled
    assert not config.allow_private_upstreams and not config.redis_embedded
    assert config.base_url == "https://portal.example.com"
    external = {"CONFIG_DATABASE_URL", "CONFIG_REDIS_URL"}
    stores = {name: value for name, value in PRODUCTION.items() if name not in external}
    assert load({**stores, "CONFIG_STORAGE_EMBEDDED": "true"}).redis_embedded


@pytest.mark.parametrize("setting", ["server.public_url", "server.static_url", "webhook.url"])
@pytest.mark.parametrize(
    "url",
    ["portal.example.com", "ftp://portal.example.com", "https://", "https://a.example/\r\nX: y", "https://a b.example",
     "https://pörtal.example", "https://a.example:0", "https://a.example:99999", "https://[::1"],
)  # fmt: skip
def test_an_address_that_is_none_stops_the_start(setting: str, url: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting}: expected an address"):
        load({"CONFIG_" + setting.upper().replace(".", "_"): url})


@pytest.mark.parametrize("name", ["public_url", "static_url"])
@pytest.mark.parametrize("rest", ["/?a=b", "/#a", "?", "@b.example", "/;script-src"])
def test_links_are_built_on_an_address_without_user_query_or_fragment(rest: str, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"server\.{name}"):
        load({f"CONFIG_SERVER_{name.upper()}": f"https://a.example{rest}"})


@pytest.mark.parametrize("sender", ["", "portico", "portico@example.com\r\nBcc: eve@example.com"])
def test_a_sender_that_no_mail_can_bear_stops_the_start(sender: str) -> None:
    with pytest.raises(ConfigError, match=r"mail\.sender"):
        load({"CONFIG_MAIL_SENDER": sender})


@pytest.mark.parametrize("names", ["a*b", "*", "**A", "A B", "A-B", "*A*"])
def test_patterns_of_variables_are_names_with_one_star_at_an_end(names: str) -> None:
    with pytest.raises(ConfigError, match=r"upstream\.env"):
        load({"CONFIG_UPSTREAM_ENV": names})
    assert load({"CONFIG_UPSTREAM_ENV": "A_KEY, B_*,*_C"}).upstream.env == ["A_KEY", "B_*", "*_C"]


@pytest.mark.parametrize(
    ("environ", "stores"),
    [
        ({}, []),
        ({"CONFIG_REDIS_URL": "redis://:pw@cache"}, [("cache", 6379)]),
        ({"CONFIG_REDIS_URL": "rediss://user:pw@[fd00::1]:6390/2"}, [("fd00::1", 6390)]),
        ({"CONFIG_REDIS_URL": "unix:///run/valkey.sock?db=1"}, []),
        ({"CONFIG_REDIS_URL": "redis+sentinel://:pw@s1:26380,s2/main/1"}, [("s1", 26380), ("s2", 26379)]),
        ({"CONFIG_DATABASE_URL": "postgres://u:p@db/portico"}, [("db", 5432)]),
        ({"CONFIG_DATABASE_URL": "postgresql+psycopg://u:p@10.0.0.5:5433/portico"}, [("10.0.0.5", 5433)]),
        ({"CONFIG_DATABASE_URL": "postgresql://u@/portico?host=/run/postgresql"}, []),
        ({"CONFIG_DATABASE_URL": "postgresql://u@/portico?host=a,b&port=5433,5434"}, [("a", 5433), ("b", 5434)]),
        ({"CONFIG_DATABASE_URL": "postgresql://u@/portico?host=a:5433&host=b"}, [("a", 5433), ("b", 5432)]),
        ({"CONFIG_DATABASE_URL": "sqlite:////data/portico.db"}, []),
    ],
)
def test_stores_that_are_reached_over_tcp_are_known_by_host_and_port(
    environ: dict[str, str], stores: list[tuple[str, int]]
) -> None:
    assert load(environ).stores == stores


@pytest.mark.parametrize("rest", ["s1:26379", "s1:x/main", "/main", "s1,/main", "s1/main/a", "s1/main?password=x"])
def test_an_address_of_sentinels_names_them_and_their_service(rest: str) -> None:
    with pytest.raises(ConfigError, match=r"redis\.url: expected Sentinels"):
        load({"CONFIG_REDIS_URL": f"redis+sentinel://{rest}"})


@pytest.mark.parametrize("setting", ["session_secret", "key_pepper"])
@pytest.mark.parametrize("secret", ["change-me", "short but random 4j2k", "a" * 60])
def test_production_refuses_secrets_that_can_be_guessed(setting: str, secret: str) -> None:
    name = f"CONFIG_SECURITY_{setting.upper()}"
    with pytest.raises(ConfigError, match=rf"security\.{setting}: expected at least 32 random characters"):
        load({**PRODUCTION, name: secret})
    load({name: secret})


def test_production_refuses_the_secrets_of_a_development_start(tmp_path: Path) -> None:
    load({"CONFIG_STORAGE_DATA_DIR": str(tmp_path)}).secrets()
    with pytest.raises(ConfigError, match=r"secrets\.json was made by a development start"):
        load({**PRODUCTION, "CONFIG_STORAGE_DATA_DIR": str(tmp_path)}).secrets()


def test_secrets_are_made_once_for_the_owner_alone(tmp_path: Path) -> None:
    config = load({"CONFIG_STORAGE_DATA_DIR": str(tmp_path / "data")})
    first = config.secrets()
    kept = tmp_path / "data" / "secrets.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert config.secrets() == first
    assert [path.name for path in kept.parent.iterdir()] == ["secrets.json"]


def test_secrets_from_settings_need_no_file(tmp_path: Path) -> None:
    key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    secrets = load({
        "CONFIG_STORAGE_DATA_DIR": str(tmp_path), "CONFIG_SECURITY_SESSION_SECRET": "s",
        "CONFIG_SECURITY_KEY_PEPPER": "p", "CONFIG_SECURITY_ENCRYPTION_KEYS": f"{key},{key}",
    }).secrets()  # fmt: skip
    assert (secrets.session_secret, secrets.key_pepper) == ("s", b"p")
    assert secrets.encryption_keys == (key.encode(),) * 2
    assert list(tmp_path.iterdir()) == []


def test_an_encryption_key_that_is_none_is_refused(tmp_path: Path) -> None:
    config = load({"CONFIG_STORAGE_DATA_DIR": str(tmp_path), "CONFIG_SECURITY_ENCRYPTION_KEYS": "short"})
    with pytest.raises(ConfigError, match=r"security\.encryption_keys"):
        config.secrets()


def test_processes_that_race_to_make_the_secrets_agree(tmp_path: Path) -> None:
    program = (
        "import sys, config; c = config.load(); sys.stdin.readline();"
        "s = c.secrets(); print(s.session_secret, s.key_pepper, s.encryption_keys)"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, env={"CONFIG_STORAGE_DATA_DIR": str(tmp_path)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(6)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    said = {racer.communicate()[0] for racer in racers}
    assert len(said) == 1 and said != {""}
    assert json.loads((tmp_path / "secrets.json").read_text())["environment"] == "development"
