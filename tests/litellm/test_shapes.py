from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.litellm import shapes
from app.metering import money

USER = {"user_id": "ada", "user_email": "Ada@example.org", "max_budget": Decimal("10.5"), "budget_duration": "30d"}
PEOPLE, TEAMS = {"u1": "ada"}, {"t1": "Research"}


@given(st.integers(0, 9_000_000 * money.NANO))
def test_a_price_survives_the_way_there_and_back(nano: int) -> None:
    here = money.text(nano)
    assert shapes.per_million(shapes.per_token(here)) == here


@pytest.mark.parametrize(
    ("token", "million"),
    [(Decimal("1.5E-7"), "0.15"), (Decimal("0.00000015"), "0.15"), (0, "0"), (None, None), (Decimal("3E-5"), "30")],
)
def test_prices_of_a_token_are_told_for_a_million(token: object, million: object) -> None:
    assert shapes.per_million(token) == million


@pytest.mark.parametrize("value", [-1, "x", True, Decimal("NaN"), Decimal("1E20")])
def test_what_is_no_amount_is_refused(value: object) -> None:
    for read in (shapes.amount, shapes.per_million):
        with pytest.raises(ValueError, match="not an amount"):
            read(value)


def test_a_user_is_found_by_email_and_id_and_has_a_budget_of_a_period() -> None:
    [user] = shapes.users([USER])
    assert (user.name, user.matches) == ("ada", ("email:ada@example.org", "name:ada"))
    assert user.fields == {
        "email": "Ada@example.org", "budget": {"limit": "10.5", "period": "month"}, "rpm_limit": None, "tpm_limit": None,
    }  # fmt: skip


@pytest.mark.parametrize("period", ["day", "week", "month", "total"])
def test_budgets_survive_the_way_there_and_back(period: str) -> None:
    budget = {"limit": "12.000000001", "period": period}
    assert shapes.budget(shapes.told("teams", {"budget": budget})) == {"budget": budget}
    assert shapes.budget(shapes.told("teams", {"budget": None})) == {"budget": None}


@pytest.mark.parametrize("odd", [{"budget_duration": "3h"}, {"max_budget": -1}, {"budget_duration": []}])
def test_a_budget_that_cant_be_held_here_is_left_out(odd: dict[str, object]) -> None:
    assert shapes.budget({"max_budget": 1} | odd) == {}


def test_limits_that_cant_be_held_here_are_left_out() -> None:
    [user] = shapes.users([{"user_id": "ada", "rpm_limit": 0, "tpm_limit": "many"}])
    assert not {"rpm_limit", "tpm_limit"} & user.fields.keys()


@pytest.mark.parametrize(
    "row", [{"user_id": "default_user_id"}, {"user_id": "root", "user_role": "proxy_admin"}, {"user_id": None}]
)
def test_its_own_users_and_admins_are_left_alone(row: dict[str, object]) -> None:
    assert not shapes.users([row])


def test_a_user_with_a_uuid_is_named_by_the_email() -> None:
    id = "45e3e396-ee08-4a61-a88e-16b3ce7e0849"
    assert shapes.username_of({"user_id": id, "user_email": "ada@example.org"}) == "ada"
    assert shapes.username_of({"user_id": id}) == id


def test_members_are_known_by_the_names_here_and_have_their_caps() -> None:
    team = {
        "team_id": "t1",
        "members_with_roles": [{"user_id": "u1", "role": "admin"}, {"user_id": "u2", "role": "user"}],
    }
    caps = [{"team_id": "t1", "user_id": "u1", "litellm_budget_table": {"max_budget": 5}}]
    [member] = shapes.members([team], caps, PEOPLE, TEAMS)
    assert (member.id, member.name) == ("t1/u1", "ada in Research")
    assert member.fields == {"role": "owner", "max_budget_in_team": "5"}
    [without] = shapes.members([team], None, PEOPLE, TEAMS)
    assert without.fields == {"role": "owner"}


def test_a_key_has_no_secret() -> None:
    row = {
        "token": "hash", "key_alias": "app", "key_name": "sk-...1234", "user_id": "u1", "team_id": "t1", "models": ["b", "a"],
        "expires": "2027-01-01T00:00:00.123+00:00", "blocked": True,
    }  # fmt: skip
    [key] = shapes.keys([row], PEOPLE, TEAMS)
    assert key.fields == {
        "key_alias": "app", "owner": "ada", "team": "Research", "models": ["a", "b"], "budget": None, "rpm_limit": None,
        "tpm_limit": None, "expires": "2027-01-01T00:00:00Z", "blocked": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    "row", [{"user_id": None}, {"user_id": "u9"}, {"team_id": "litellm-dashboard"}, {"token": None}]
)
def test_keys_of_nobody_known_and_of_its_own_pages_are_left_alone(row: dict[str, object]) -> None:
    assert not shapes.keys([{"token": "hash", "user_id": "u1", "team_id": None} | row], PEOPLE, TEAMS)


def test_a_key_for_all_models_is_one_without_a_list() -> None:
    assert shapes.key_models(["all-team-models"]) == shapes.key_models([]) == shapes.key_models(None) == []


def test_deployments_of_one_name_are_one_model() -> None:
    info = {"input_cost_per_token": Decimal("2E-6"), "max_input_tokens": 1000, "mode": "embedding", "db_model": True}
    rows = [{"model_name": "m", "model_info": {"id": id, **info}} for id in ("b", "a")]
    [model] = shapes.models([*rows, {"model_name": "openai/*", "model_info": {"id": "c"}}])
    assert (model.id, model.name, model.fixed) == ("a", "m", False)
    assert model.fields["input_per_mtok"] == "2"
    assert (model.fields["context_window"], model.fields["mode"]) == (1000, "embeddings")


def test_a_model_of_a_configuration_file_cant_be_changed() -> None:
    [model] = shapes.models([{"model_name": "m", "model_info": {"id": "a", "db_model": False}}])
    assert model.fixed


def test_what_litellm_is_told_has_its_own_words() -> None:
    fields = {"email": "a@b.c", "rpm_limit": 5, "budget": {"limit": "1", "period": "day"}}
    assert shapes.told("users", fields) == {
        "user_email": "a@b.c", "rpm_limit": 5, "max_budget": Decimal(1), "budget_duration": "1d",
    }  # fmt: skip
    assert shapes.told("members", {"role": "owner"}) == {"role": "admin"}
    assert shapes.told("models", {"input_per_mtok": "0.15", "mode": "chat"}) == {
        "model_info": {"input_cost_per_token": Decimal("1.5E-7"), "mode": "chat"}
    }
