"""The catalogue and asking for access."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from datetime import timedelta

import pytest

from app import clock
from app.clock import now
from app.domain import catalog, providers, subscriptions
from app.domain.catalog import DeploymentSpec, Model
from app.extensions import db, transaction
from tests.blueprints.portal.conftest import Browser, make_key, make_model, subscribe, use
from tests.house import Once, People


def status_of(people: People, model: Model) -> str | None:
    db.session.rollback()
    found = db.session.scalars(subscriptions.owned_by(people.owner))
    return next((one.status for one in found if one.model_id == model.id), None)


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
    owner = signed_in("owner")
    page = owner.get("/models/vendor/large").text
    assert "$0.075" in page
    assert "128,000 tokens" in page
    page = owner.get("/models/vendor/large?tab=quickstart").text
    assert page.count("http://localhost/v1") >= 4
    assert "PORTICO_API_KEY" in page
    for name in ("curl", "Python", "JavaScript", "LangChain"):
        assert f"Copy {name} code" in page
    assert "stream=True" not in page
    streamed = owner.get("/models/vendor/large?tab=quickstart&stream=1").text
    for words in ("stream=True", "&#34;stream&#34;: true", "model.stream("):
        assert words in streamed


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
    assert "Pending" in owner.get("/models/lab/guarded").text
    page = owner.get("/models/lab/guarded?tab=access").text
    assert "For &lt;b&gt;research&lt;/b&gt;." in page
    assert "Request access" not in page


def test_a_denial_shows_its_reason_and_may_be_followed_by_a_new_request(
    people: People, guarded: Model, signed_in: Callable[[str], Browser]
) -> None:
    owner = signed_in("owner")
    owner.post("/models/lab/guarded/subscription", justification="Research.")
    found = subscriptions.live(people.owner, guarded)
    assert found is not None
    transaction(subscriptions.decide, found, "deny", by=people.admin, reason="Use the small one.")
    page = owner.get("/models/lab/guarded?tab=access").text
    assert "Your request was denied" in page
    assert "Use the small one." in page
    assert "Use the small one." in owner.get("/subscriptions").text
    owner.post("/models/lab/guarded/subscription", justification="It is too small.")
    assert status_of(people, guarded) == "pending"


def test_a_form_without_its_token_changes_nothing(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    answer = signed_in("owner").post("/models/small/subscription", csrf_token="forged")
    assert answer.status_code == 400
    assert status_of(people, small) is None


@pytest.fixture
def catalogue(people: People, once: Once) -> None:
    """Four models that differ in everything one can look for."""

    def make() -> None:
        lab = providers.create(by=None, name="Lab", kind="echo", config={})
        off = providers.create(by=None, name="Switched off", kind="echo", config={}, status="disabled")

        def offer(name: str, provider: str, price: str | None, **values: object) -> Model:
            at = [DeploymentSpec(provider_id=provider, upstream_model=name)]
            return make_model(None, name, price=price and {"input_per_mtok": price}, deployments=at, **values)

        offer("alpha", lab.id, "0", features=["tools", "vision"], context_window=8_000)
        offer("beta", lab.id, "1.5", features=["tools", "tools_2"], context_window=200_000, restricted=True)
        offer("gamma", lab.id, "12", capabilities=["embeddings"], status="deprecated", restricted=True)
        old = offer("delta", off.id, None)
        old.created_at = now() - timedelta(days=15)
        offer("unseen", lab.id, "1", features=["tools"], status="hidden")

    def make_all() -> None:
        transaction(make)
        subscribe(people.owner, catalog.model("alpha"))
        subscribe(people.stranger, catalog.model("delta"))

    once("catalogue", make_all)


def names(page: str) -> list[str]:
    """The models of a catalogue page, in their order."""
    return re.findall(r'<a[^>]* href="/models/([a-z]+)">', page)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", "alpha beta delta gamma"),
        ("capability=embeddings", "gamma"),
        ("feature=tools", "alpha beta"),
        ("feature=tool", ""),
        ("access=subscribed", "alpha"),
        ("access=restricted", "beta gamma"),
        ("access=open", "alpha delta"),
        ("status=available", "alpha beta"),
        ("status=deprecated", "gamma"),
        ("status=unavailable", "delta"),
        ("status=new", "alpha beta gamma"),
        ("context=32000", "beta"),
        ("least=1.5&most=11", "beta"),
        ("most=0", "alpha"),
        ("provider=LAB&access=restricted", "beta gamma"),
        ("provider=OFF", "delta"),
        ("provider=nobody", ""),
        ("sort=-name", "gamma delta beta alpha"),
        ("sort=price", "alpha beta gamma delta"),
        ("sort=-price", "gamma beta alpha delta"),
        ("sort=-context", "beta alpha delta gamma"),
        ("sort=created", "delta alpha beta gamma"),
        ("least=cheap&context=7&status=x&access=y&capability=z&sort=password", "alpha beta delta gamma"),
    ],
)
@pytest.mark.usefixtures("catalogue")
def test_the_catalogue_is_narrowed_and_sorted(signed_in: Callable[[str], Browser], query: str, found: str) -> None:
    ids = {provider.name: provider.id for provider in db.session.scalars(providers.search())}
    owner, asked = signed_in("owner"), query.replace("LAB", ids["Lab"]).replace("OFF", ids["Switched off"])
    for view in ("cards", "table"):
        page = owner.get(f"/models?{asked}&view={view}", fragment=True).text
        assert names(page) == found.split(), view
        assert bool(found) or "No model fits this search." in page


@pytest.mark.usefixtures("catalogue")
def test_each_value_of_a_filter_tells_how_many_models_it_would_leave(signed_in: Callable[[str], Browser]) -> None:
    owner = signed_in("owner")
    everything = owner.get("/models").text
    for words in (
        *("Chat (3)", "Embeddings (1)", "Lab (3)", "Switched off (1)", "Subscribed (1)", "Restricted (2)", "Open (2)"),
        *("Tools (2)", "Vision (1)", "Available (2)", "Deprecated (1)", "Unavailable (1)", "New (3)"),
    ):
        assert f">{words}<" in everything, words
    narrowed = owner.get("/models?access=restricted").text
    for words in ("Restricted (2)", "Open (2)", "Chat (1)", "Lab (2)", "Tools (1)"):
        assert f">{words}<" in narrowed, words
    assert "Vision (" not in narrowed
    assert "Access: Restricted" in narrowed
    assert "More filters<" in narrowed
    opened = owner.get("/models?most=2&context=8000").text
    assert "More filters (2)" in opened
    assert "Context: from 8,000 tokens" in opened
    assert "Input price up to: 2" in opened


@pytest.mark.usefixtures("catalogue")
def test_badges_and_my_access_stand_at_each_model(signed_in: Callable[[str], Browser]) -> None:
    page = signed_in("owner").get("/models?view=table").text
    rows = {
        found[1]: found[0]
        for found in re.findall(
            r'(<tr class="pf-v6-c-table__tr" id="model-.*?href="/models/([a-z]+)".*?</tr>)', page, re.S
        )
    }
    assert "Subscribed" in rows["alpha"]
    assert "Restricted access" in rows["beta"]
    assert "On request" in rows["beta"]
    assert f"Deprecated since {now().day} " in rows["gamma"]
    assert "Unavailable" in rows["delta"]
    assert ">New<" in rows["alpha"]
    assert ">New<" not in rows["delta"]


def test_the_table_tells_the_longest_answer_and_how_each_model_has_answered_of_late(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    for name, longest in (("short", 1_024), ("long", 16_384)):
        transaction(make_model, people.admin, name, max_output_tokens=longest)
    at_ms = clock.now_ms()
    for outcome in ("ok", "ok", "ok", "error"):
        use(people.stranger, small, at_ms, outcome=outcome, ttft_ms=250)
    owner = signed_in("owner")
    page = owner.get("/models?view=table&sort=-longest").text
    names = re.findall(r'<a class="break" href="/models/([a-z]+)">', page)
    assert [name for name in names if name != "small"] == ["long", "short"]
    rows = dict(zip(names, re.findall(r'<tr class="pf-v6-c-table__tr" id="model-.*?</tr>', page, re.S), strict=True))
    assert "16.3k" in rows["long"]
    assert "75% ok" in rows["small"]
    assert "250 ms" in rows["small"]
    assert "% ok" not in rows["long"]


@pytest.mark.usefixtures("catalogue")
def test_the_filtered_catalogue_is_a_file(signed_in: Callable[[str], Browser]) -> None:
    owner = signed_in("owner")
    told = owner.get("/models?access=restricted&format=json", buffered=True).get_json()["data"]
    assert [row["name"] for row in told] == ["beta", "gamma"]
    assert told[0]["input_per_mtok"] == "1.5"
    assert told[0]["my_access"] is None
    [row] = csv.DictReader(io.StringIO(owner.get("/models?access=subscribed&format=csv", buffered=True).text))
    assert (row["name"], row["my_access"], row["features"], row["providers"]) == (
        "alpha", "active", "tools vision", "Lab")  # fmt: skip


def test_the_catalogue_takes_the_same_few_queries_for_many_models(
    people: People, signed_in: Callable[[str], Browser], count_queries: Callable[[], int]
) -> None:
    owner = signed_in("owner")
    for number in range(3):
        transaction(make_model, None, f"m{number}")
    owner.get("/models")
    count_queries()
    owner.get("/models")
    few = count_queries()
    for number in range(3, 19):
        transaction(make_model, None, f"m{number}")
    count_queries()
    assert "m18" in owner.get("/models").text
    assert count_queries() == few


def test_a_description_is_read_as_markdown_and_does_no_more(
    people: People, signed_in: Callable[[str], Browser]
) -> None:
    transaction(make_model, None, "wordy", description="# Good\n\nat **sums**, <script>x</script> [y](javascript:z)")
    owner = signed_in("owner")
    page = owner.get("/models/wordy").text
    assert "<h3>Good</h3>" in page
    assert "<strong>sums</strong>" in page
    assert "<script>x" not in page
    assert 'href="javascript' not in page
    assert "at sums" in owner.get("/models").text


def test_performance_is_that_of_everybody_and_names_nobody(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    owner = signed_in("owner")
    assert "No figures yet" in owner.get("/models/small?tab=performance").text
    now_ms = clock.now_ms()
    stream = {"stream": True, "duration_ms": 3000, "ttft_ms": 500, "completion_tokens": 100}
    use(people.owner, small, now_ms, **stream)
    use(people.stranger, small, now_ms, **stream)
    use(people.stranger, small, now_ms, stream=False, outcome="error", status=502)
    use(people.stranger, small, now_ms - 2 * 86_400_000, stream=False)
    page = owner.get("/models/small?tab=performance").text
    day, week = re.findall(r"<strong>(?:Last 24 hours|Last 7 days)</strong>(.*?)</tr>", page, re.S)
    for words in (">3<", "33.3%", "500 ms", "40.0", "66.7%"):
        assert words in day, words
    assert ">4<" in week
    assert "25%" in week
    assert "stranger" not in page
    assert page.count("<svg") == owner.get("/models/small?tab=performance&span=7d").text.count("<svg")
    guarded = transaction(make_model, None, "hidden-one", status="hidden")
    assert owner.get(f"/models/{guarded.name}?tab=performance").status_code == 404


def test_the_access_tab_lists_the_keys_that_can_call_the_model(
    people: People, small: Model, guarded: Model, signed_in: Callable[[str], Browser]
) -> None:
    owner = signed_in("owner")
    make_key(people.owner, name="for-everything")
    id = subscribe(people.owner, small)
    subscribe(people.stranger, small)
    make_key(people.stranger, name="not-mine")
    page = owner.get("/models/small?tab=access").text
    assert "for-everything" in page
    assert "not-mine" not in page
    assert f'href="/subscriptions/{id}"' in page
    assert "Create a key for this model" in page
    assert 'href="/keys/new?model=small"' in page
    assert "for-everything" not in owner.get("/models/lab/guarded?tab=access").text
    assert owner.get("/models/small?tab=nonsense").status_code == 200
