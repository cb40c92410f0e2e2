"""Finding rows: the same ones on every database, whatever letters are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from app.domain import audit, keys
from app.domain.keys import ApiKey
from app.domain.person import Person
from app.domain.search import among, contains, one_of
from app.extensions import db, transaction
from tests.house import People

WORDS = ("nightly", "100%", "a_b", "back\\slash", "it's", "Straße")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=[pytest.mark.services, pytest.mark.both_databases])])
def database_url(request: pytest.FixtureRequest, home: Path) -> str:
    url = request.getfixturevalue("lasting_postgres_url") if request.param == "postgresql" else None
    return url or f"sqlite:///{home / 'portico.db'}"


@pytest.fixture
def named(people: People) -> list[str]:
    """Keys whose names are `WORDS`; the first has a note too."""

    def make() -> None:
        for place, word in enumerate(WORDS):
            keys.create(people.owner, by=people.owner, name=word, note="For Reports" if place == 0 else None)

    transaction(make)
    return list(WORDS)


def found(search: str) -> list[str]:
    query = select(ApiKey.name).where(contains(search, ApiKey.name, ApiKey.note)).order_by(ApiKey.id)
    return list(db.session.scalars(query))


@pytest.mark.parametrize(
    ("search", "names"),
    [
        ("NIGHT", ["nightly"]),
        ("reports", ["nightly"]),  # of the other column
        ("r r", ["nightly"]),
        ("yFor", []),  # no text goes on from one column to the next
        ("%", ["100%"]),
        ("_", ["a_b"]),
        ("\\", ["back\\slash"]),
        ("'", ["it's"]),
        ("t", ["nightly", "it's", "Straße"]),
        ("none of these", []),
    ],
)
def test_a_text_is_found_in_any_of_the_columns_and_is_no_pattern(
    named: list[str], search: str, names: list[str]
) -> None:
    assert found(search) == names


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=6))
def test_what_is_found_contains_what_was_looked_for(named: list[str], search: str) -> None:
    def holds(name: str) -> bool:
        return any(search.lower() in text.lower() for text in (name, "For Reports" if name == WORDS[0] else ""))

    assert found(search) == [name for name in named if holds(name)]


def test_one_of_any_number_of_texts_is_one_parameter(people: People) -> None:
    wanted = [*(f"none-{number}" for number in range(40_000)), people.owner.id, 'a "quoted" text']
    assert db.session.scalars(select(Person.username).where(one_of(Person.id, wanted))).all() == ["owner"]
    assert db.session.scalars(select(Person.username).where(one_of(Person.id, []))).all() == []


def test_among_the_values_of_a_query(people: People, named: list[str]) -> None:
    owners = select(ApiKey.person_id).where(ApiKey.name == "nightly")
    assert db.session.scalars(select(Person.username).where(among(Person.id, owners))).all() == ["owner"]
    nobody = select(ApiKey.person_id).where(ApiKey.name == "none")
    assert db.session.scalars(select(Person.username).where(among(Person.id, nobody))).all() == []


def test_a_search_of_the_audit_log_finds_its_index(people: People) -> None:
    """Its columns are told by the query and by a revision, which must agree."""
    transaction(audit.record, people.admin, "thing.act", "thing", "1", name="Éclair")
    query = audit.entries(search="CLAIR")
    assert [entry.object_name for entry in db.session.scalars(query)] == ["Éclair"]
    if db.engine.dialect.name != "postgresql":
        return
    for way in ("seqscan", "indexscan"):  # the table is small
        db.session.execute(text(f"SET LOCAL enable_{way} = off"))
    told = query.compile(db.engine, compile_kwargs={"literal_binds": True})
    plan = "\n".join(db.session.scalars(text(f"EXPLAIN {str(told).replace(':', chr(92) + ':')}")))
    assert "ix_audit_entry_grams" in plan
