"""Access tokens: what they are good for at each moment, refreshed once, and revoked with all that came from the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc import jwt
from sqlalchemy import func, select

from app import clock
from app.domain import identity, tokens
from app.domain.changes import PENDING
from app.domain.errors import Conflict, Forbidden, Invalid, NotFound
from app.domain.passwords import PasswordHash
from app.domain.person import SCOPES
from app.domain.tokens import AccessToken, Grant, RefreshToken
from app.extensions import db, transaction
from tests.conftest import SetClock
from tests.house import People

DAY = timedelta(days=1)


def grant(people: People, *scopes: str) -> Grant:
    return transaction(tokens.grant, people.owner, scopes=scopes)


def refreshed(made: Grant) -> Grant | None:
    return transaction(tokens.refresh, str(made.refresh_token))


def works(made: Grant) -> bool:
    db.session.rollback()
    return tokens.verify(made.access_token) is not None


def test_a_token_tells_whose_it_is_and_what_it_may_do(people: People) -> None:
    found = tokens.verify(grant(people, "portal").access_token)
    assert found is not None
    assert (found.person.id, found.scopes) == (people.owner.id, ("portal",))
    assert grant(people).scopes == people.owner.held_scopes == ("inference", "portal")


def test_nobody_is_given_more_than_they_hold(people: People) -> None:
    with pytest.raises(Forbidden) as refused:
        grant(people, "portal", "admin")
    assert refused.value.field == "scope"
    with pytest.raises(Invalid):
        grant(people, "everything")
    assert db.session.scalar(select(func.count()).select_from(AccessToken)) == 0


def test_a_token_may_have_a_part_of_what_its_person_holds(people: People) -> None:
    found = tokens.verify(grant(people, "usage:read", "chat").access_token)
    assert found is not None
    assert found.scopes == ("chat", "usage:read")
    transaction(identity.update, people.owner, by=people.admin, scopes=["portal"])
    with pytest.raises(Forbidden):
        grant(people, "chat")


def test_what_a_person_lost_their_tokens_lost(people: People) -> None:
    made = grant(people)
    transaction(identity.update, people.owner, by=people.admin, scopes=["portal"])
    found = tokens.verify(made.access_token)
    assert found is not None and found.scopes == ("portal",)
    again = refreshed(made)
    assert again is not None and again.scopes == ("portal",)


def test_a_disabled_person_has_no_token(people: People) -> None:
    made = grant(people)
    transaction(lambda: setattr(people.owner, "disabled", True))  # the bare fact: what else is done to tokens is undone
    assert not works(made)
    assert refreshed(made) is None
    with pytest.raises(Conflict):
        transaction(tokens.issue, people.owner, by=people.admin)
    transaction(lambda: setattr(people.owner, "disabled", False))
    assert works(made)


def test_a_token_works_until_its_end(people: People, set_clock: SetClock) -> None:
    """By the application's clock, also where the clock that the library asks says otherwise."""
    start = clock.now().replace(microsecond=0)
    set_clock(start)
    made = grant(people)
    set_clock(start + timedelta(seconds=made.expires_in - 1))
    assert works(made)
    assert db.session.scalars(tokens.live_of(people.owner)).all() == [made.token]
    set_clock(start + timedelta(seconds=made.expires_in + 1))
    assert not works(made)
    assert db.session.scalars(tokens.live_of(people.owner)).all() == []


def test_a_refresh_token_works_once_and_ends_the_token_before(people: People) -> None:
    first = grant(people, "portal")
    second = refreshed(first)
    assert second is not None
    assert (works(first), works(second), second.scopes) == (False, True, ("portal",))


def test_a_refresh_token_that_is_used_again_ends_all_that_came_from_it(people: People) -> None:
    first, other = grant(people), grant(people)
    second = refreshed(first)
    assert second is not None
    assert refreshed(first) is None
    assert not works(second)
    assert refreshed(second) is None
    assert works(other), "another sign-in is another family"


def test_a_refresh_token_ends(people: People, set_clock: SetClock) -> None:
    start = clock.now().replace(microsecond=0)
    set_clock(start)
    made = grant(people)
    end = db.session.scalars(select(RefreshToken.expires_at)).one()
    set_clock(end + timedelta(seconds=1))
    assert refreshed(made) is None
    set_clock(end - timedelta(seconds=1))
    assert refreshed(made) is not None


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_other_text_is_a_token(people: People, data: st.DataObject) -> None:
    text = grant(people).access_token
    place = data.draw(st.integers(0, len(text) - 2))  # the last letter has bits that no byte has
    sign = data.draw(st.sampled_from("aA0.\0é-"))
    wrong = text[:place] + sign + text[place + 1 :]
    assert (tokens.verify(wrong) is not None) == (wrong == text)


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "a" * 5000, "é.é.é", ".".join(["e30"] * 3), "\0.\0.\0"])
def test_nonsense_is_no_token(people: People, text: str) -> None:
    assert tokens.verify(text) is None
    assert transaction(tokens.refresh, text) is None


def test_a_token_without_a_signature_or_a_row_is_none(people: People) -> None:
    made = grant(people)
    head, body, _ = made.access_token.split(".")
    none = jwt.encode({"alg": "HS256"}, {"iss": "portico", "jti": "no-such-row", "exp": 2**40}, tokens._key())
    assert tokens.verify(none) is None
    assert tokens.verify(f"{head}.{body}.") is None


def test_revoking_a_persons_tokens_leaves_everybody_elses(people: People) -> None:
    mine, long, theirs = (
        grant(people),
        transaction(tokens.issue, people.owner, by=people.admin),
        transaction(tokens.grant, people.stranger),
    )
    assert transaction(tokens.revoke_of, people.owner, by=people.admin) == 1
    assert [works(one) for one in (mine, long, theirs)] == [False, False, True]
    assert refreshed(mine) is None
    with pytest.raises(NotFound):
        transaction(tokens.revoke_of, people.owner, by=people.admin)


def test_the_families_of_a_password_end_but_for_ones_own(people: People) -> None:
    here, other = grant(people), grant(people)
    long = transaction(tokens.issue, people.owner, by=people.admin)
    transaction(tokens.revoke_families, people.owner, but=here.token.family_id)
    assert [works(one) for one in (here, other, long)] == [True, False, True]
    assert refreshed(other) is None
    assert refreshed(here) is not None
    transaction(tokens.revoke_families, people.owner)
    assert works(long)
    assert not db.session.scalars(tokens.live_of(people.owner).where(AccessToken.long_lived.is_(False))).all()


def test_tokens_are_purged_a_day_after_their_end(people: People, set_clock: SetClock) -> None:
    start = datetime(2026, 11, 21, tzinfo=UTC)
    set_clock(start)
    made = grant(people)
    transaction(tokens.issue, people.owner, by=people.admin)
    end = start + timedelta(seconds=made.expires_in)
    set_clock(end + DAY - timedelta(seconds=1))
    assert transaction(tokens.purge) == 0
    set_clock(end + DAY + timedelta(seconds=1))
    assert transaction(tokens.purge) == 1
    set_clock(start + timedelta(days=5000))
    assert transaction(tokens.purge, limit=1) == 2, "one of each kind"
    assert transaction(tokens.purge) == 0


def test_every_end_of_a_token_that_may_call_is_published(people: People) -> None:
    made = grant(people)

    def noted(verb: object, *args: object, **more: object) -> set[tuple[str, str]]:
        def work() -> set[tuple[str, str]]:
            verb(*args, **more)  # type: ignore[operator]
            return set(db.session.info.get(PENDING, ()))

        return transaction(work)

    caller = ("caller", made.token.digest)
    assert caller in noted(tokens.refresh, made.refresh_token)
    again = grant(people)
    assert ("caller", again.token.digest) in noted(tokens.revoke_families, people.owner)
    last = grant(people)
    assert ("caller", last.token.digest) in noted(tokens.forget, people.owner)
    assert db.session.scalar(select(func.count()).select_from(RefreshToken)) == 0
    assert set(SCOPES) > {"inference"}


def own(people: People, name: str = "script", days: int | None = 30, scopes: tuple[str, ...] = ("portal",)) -> Grant:
    return transaction(tokens.issue, people.owner, by=people.owner, scopes=scopes, name=name, days=days)


def test_a_person_issues_themselves_a_token_with_a_name_scopes_and_an_end(people: People, set_clock: SetClock) -> None:
    start = clock.now().replace(microsecond=0)
    set_clock(start)
    made = own(people, " nightly ")
    assert (made.token.name, made.token.issued_by, made.scopes, made.expires_in) == (
        "nightly",
        "owner",
        ("portal",),
        30 * 86400,
    )
    assert works(made)
    set_clock(start + 30 * DAY + timedelta(seconds=1))
    assert not works(made)


@pytest.mark.parametrize(
    ("name", "days", "field"), [("", 30, "name"), ("a\nb", 30, "name"), ("a", 0, "days"), ("a", 181, "days")]
)
def test_a_name_and_an_end_out_of_bounds_are_refused(people: People, name: str, days: int, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        own(people, name, days)
    assert refused.value.field == field


def test_a_person_has_a_bounded_number_of_tokens(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MOST_LONG_LIVED", 2)
    first = own(people)
    own(people)
    grant(people)  # what comes of signing in does not count
    with pytest.raises(Conflict):
        own(people)
    transaction(tokens.revoke, first.token, by=people.owner)
    own(people)
    transaction(tokens.issue, people.owner, by=people.admin)


def test_one_token_is_revoked_and_the_others_stay(people: People) -> None:
    kept, ended, sign_in = own(people), own(people), grant(people)
    transaction(tokens.revoke, tokens.get_own(people.owner, ended.token.id), by=people.owner)
    assert (works(kept), works(ended), works(sign_in)) == (True, False, True)
    transaction(tokens.revoke, tokens.get_own(people.owner, sign_in.token.id), by=people.owner)
    assert not works(sign_in)
    assert refreshed(sign_in) is None, "its refresh token ends with it"
    for person, id in ((people.owner, ended.token.id), (people.stranger, kept.token.id), (people.owner, "x")):
        with pytest.raises(NotFound):
            tokens.get_own(person, id)


def test_a_long_lived_token_is_refreshed_by_another_of_its_life(people: People, set_clock: SetClock) -> None:
    set_clock(clock.now())
    made = transaction(
        lambda: tokens.issue(people.owner, by=people.admin, scopes=["portal"], name="app", days=30, refreshable=True)
    )
    set_clock.move(29 * 86_400)
    again = refreshed(made)
    assert again is not None
    assert (again.token.long_lived, again.token.name, again.scopes) == (True, "app", ("portal",))
    assert again.token.expires_at - clock.now() > timedelta(days=29)
    assert (works(made), works(again)) == (False, True)
    transaction(identity.change_password, people.owner, by=people.owner, password=PasswordHash("x"))
    last = refreshed(again)
    assert last is not None
    assert refreshed(again) is None  # a second use: somebody else has it
    assert not works(last)


def test_who_loses_all_tokens_cannot_refresh_long_lived_ones(people: People) -> None:
    made = transaction(lambda: tokens.issue(people.owner, by=people.admin, refreshable=True))
    transaction(lambda: tokens.revoke_all(identity.named("owner")))
    assert refreshed(made) is None
