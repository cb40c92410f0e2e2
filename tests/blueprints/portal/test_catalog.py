"""The catalogue and asking for access."""

from __future__ import annotations

from collections.abc import Callable

from app.domain import subscriptions
from app.domain.catalog import Model
from app.extensions import db, transaction
from tests.blueprints.portal.conftest import Browser, make_model
from tests.house import People


def status_of(people: People, model: Model) -> str | None:
    db.session.rollback()
    found = subscriptions.latest_by_model(people.owner).get(model.id)
    return found.status if found else None


def test_search_and_capability_narrow_the_catalogue_and_an_empty_result_says_so(
    people: People, small: Model, guarded: Model, signed_in: Callable[[str], Browser]
) -> None:
    transaction(make_model, people.admin, "vectors", capabilities=["embeddings"])
    transaction(make_model, people.admin, "secret", status="hidden")
    owner = signed_in("owner")
    everything = owner.get("/models").text
    assert "3 results" in everything
    assert "secret" not in everything
    assert "1 result<" in owner.get("/models?q=guard").text
    embeddings = owner.get("/models?capability=embeddings").text
    assert "vectors" in embeddings
    assert "lab/guarded" not in embeddings
    assert "Clear all filters" in owner.get("/models?q=zzz").text
    assert owner.get("/models?capability=nonsense&page=x&size=y").status_code == 200


def test_a_catalogue_without_models_says_so(people: People, signed_in: Callable[[str], Browser]) -> None:
    assert "No models yet" in signed_in("owner").get("/models").text
    assert "Add a model" in signed_in("admin").get("/models").text


def test_a_model_page_has_price_limits_and_a_quickstart_with_the_real_address(
    people: People, signed_in: Callable[[str], Browser]
) -> None:
    transaction(make_model, people.admin, "vendor/large", context_window=128_000, price={"input_per_mtok": "0.075"})
    page = signed_in("owner").get("/models/vendor/large").text
    assert "$0.075" in page
    assert "128,000 tokens" in page
    assert page.count("http://localhost/v1") >= 4
    assert "PORTICO_API_KEY" in page
    for name in ("curl", "Python", "JavaScript"):
        assert f"Copy {name} code" in page


def test_what_is_not_on_offer_is_not_there(people: People, signed_in: Callable[[str], Browser]) -> None:
    transaction(make_model, people.admin, "hidden-one", status="hidden")
    owner = signed_in("owner")
    for path in ("/models/nothing", "/models/hidden-one", "/models/hidden-one/subscription"):
        assert owner.get(path).status_code == 404, path
    assert owner.post("/models/hidden-one/subscription").status_code == 404
    assert signed_in("admin").get("/models/hidden-one").status_code == 200


def test_an_open_model_is_active_at_once_and_leads_to_a_key(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    owner = signed_in("owner")
    answer = owner.post("/models/small/subscription", page="/models/small")
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/models/small"
    page = owner.get("/models/small").text
    assert "You are subscribed to small. Create a key to call it." in page
    assert 'href="/keys/new?model=small"' in page
    assert status_of(people, small) == "active"
    owner.post("/models/small/subscription", page="/home")
    assert "You have asked for small already" in owner.get("/models/small").text


def test_a_restricted_model_asks_what_for_and_a_bad_form_keeps_what_was_written(
    people: People, guarded: Model, signed_in: Callable[[str], Browser]
) -> None:
    owner = signed_in("owner")
    answer = owner.post("/models/lab/guarded/subscription", page="/models/lab/guarded", justification=" ")
    assert answer.status_code == 422
    assert "Say in a sentence" in answer.text
    long = "because " * 400
    answer = owner.post("/models/lab/guarded/subscription", page="/models/lab/guarded", justification=long)
    assert answer.status_code == 422
    assert long.strip() in answer.text
    assert status_of(people, guarded) is None
    owner.post("/models/lab/guarded/subscription", page="/models/lab/guarded", justification="For <b>research</b>.")
    assert status_of(people, guarded) == "pending"
    page = owner.get("/models/lab/guarded").text
    assert "Pending" in page
    assert "For &lt;b&gt;research&lt;/b&gt;." in page
    assert "Request access" not in page


def test_a_denial_shows_its_reason_and_may_be_followed_by_a_new_request(
    people: People, guarded: Model, signed_in: Callable[[str], Browser]
) -> None:
    owner = signed_in("owner")
    owner.post("/models/lab/guarded/subscription", justification="Research.")
    found = subscriptions.latest_by_model(people.owner)[guarded.id]
    transaction(subscriptions.decide, found, "deny", by=people.admin, reason="Use the small one.")
    page = owner.get("/models/lab/guarded").text
    assert "Your request was denied" in page
    assert "Use the small one." in page
    assert "Use the small one." in owner.get("/subscriptions").text
    owner.post("/models/lab/guarded/subscription", page="/models/lab/guarded", justification="It is too small.")
    assert status_of(people, guarded) == "pending"


def test_a_form_without_its_token_changes_nothing(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    answer = signed_in("owner").post("/models/small/subscription", csrf_token="forged")
    assert answer.status_code == 400
    assert status_of(people, small) is None
