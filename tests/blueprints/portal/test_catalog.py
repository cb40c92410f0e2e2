"""The catalogue and asking for access."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import timedelta

import pytest
import redis

from app import clock
from app.clock import now
from app.domain import catalog, providers, subscriptions
from app.domain.catalog import CAPABILITIES, DeploymentSpec, Model
from app.extensions import db, transaction
from app.gateway.endpoints import TABLE
from tests.blueprints.portal.conftest import Browser, make_key, make_model, subscribe, tell, use
from tests.house import Once, People
from tests.page import Page, read


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
    assert owner.page("/models").total == "3 results"
    assert "secret" not in owner.get("/models").text
    assert names(owner.page("/models?q=guard")) == ["lab/guarded"]
    assert names(owner.page("/models?capability=embeddings")) == ["vectors"]
    nothing = owner.page("/models?q=zzz")
    assert (names(nothing), nothing.link("Clear all filters").href) == ([], "/models")
    assert owner.get("/models?capability=nonsense&page=x&size=y").status_code == 200


def test_a_catalogue_without_models_says_so(people: People, signed_in: Callable[[str], Browser]) -> None:
    assert "No models yet" in signed_in("owner").page("/models").headings
    assert signed_in("admin").page("/models").link("Add a model").href == "/admin/models"


def test_a_model_page_has_price_limits_and_a_quickstart_with_the_real_address(
    people: People, signed_in: Callable[[str], Browser]
) -> None:
    transaction(make_model, people.admin, "vendor/large", context_window=128_000, price={"input_per_mtok": "0.075"})
    owner = signed_in("owner")
    page = owner.page("/models/vendor/large")
    assert page.section("Price").facts["Input, per 1M tokens"] == "$0.075"
    assert page.section("Limits and capabilities").facts["Context"] == "128,000 tokens"
    page = owner.page("/models/vendor/large?tab=quickstart")
    for name in ("curl", "Python", "JavaScript", "LangChain"):
        assert "http://localhost/v1" in page.code(name), name
        assert "PORTICO_API_KEY" in page.code(name), name
    assert "stream=True" not in page.code("Python")
    streamed = owner.page("/models/vendor/large?tab=quickstart&stream=1")
    for name, words in (("Python", "stream=True"), ("curl", '"stream": true'), ("LangChain", "model.stream(")):
        assert words in streamed.code(name)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_quickstart_calls_the_path_of_the_models_first_capability(
    people: People, signed_in: Callable[[str], Browser], capability: str
) -> None:
    transaction(make_model, people.admin, "vendor/one", capabilities=[capability])
    page = signed_in("owner").page("/models/vendor/one?tab=quickstart")
    path = next(one.path for one in TABLE if one.capability == capability)
    assert f"http://localhost{path} " in page.code("curl")
    for name in ("curl", "Python", "JavaScript"):
        assert "vendor/one" in page.code(name) and "%(" not in page.code(name)
    compile(page.code("Python"), "quickstart", "exec")


def test_a_model_page_tells_the_price_of_service_tiers_and_long_prompts_in_words(
    people: People, signed_in: Callable[[str], Browser]
) -> None:
    long = {"above_prompt_tokens": 200_000, "input_per_mtok": "5"}
    price = {"input_per_mtok": "2", "tiers": {"flex": {"input_per_mtok": "1", "output_per_mtok": "0"}}}
    transaction(make_model, people.admin, "banded", price={**price, "long_context": long})
    transaction(make_model, people.admin, "plain", price={"input_per_mtok": "2"})
    owner = signed_in("owner")
    card = owner.page("/models/banded").section("Price")
    assert card.section("Service tier flex").facts == {"Input, per 1M tokens": "$1.00", "Output, per 1M tokens": "Free"}
    assert card.section("Prompts above 200,000 tokens").facts == {"Input, per 1M tokens": "$5.00"}
    assert "standard amount" in card
    plain = owner.page("/models/plain").section("Price")
    assert plain.facts == {"Input, per 1M tokens": "$2.00"}
    assert not {"tier", "standard", "Prompts"} & set(plain.text.split())


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
    page = owner.page("/models/small")
    assert page.toasts == ["You are subscribed to small. Try it here, or create a key to call it."]
    assert page.link("Create a key").href == "/keys/new?model=small"
    assert status_of(people, small) == "active"
    owner.post("/models/small/subscription", page="/home")
    assert "You have asked for small already" in owner.page("/models/small").toast


def test_a_restricted_model_asks_what_for_and_a_bad_form_keeps_what_was_written(
    people: People, guarded: Model, signed_in: Callable[[str], Browser]
) -> None:
    owner = signed_in("owner")
    answer = owner.post("/models/lab/guarded/subscription", page="/models/lab/guarded", justification=" ")
    assert answer.status_code == 422
    [purpose] = [field for field in read(answer).fields if field.error]
    assert "Enter what you need" in (purpose.error or "")
    long = "because " * 400
    answer = owner.post("/models/lab/guarded/subscription", page="/models/lab/guarded", justification=long)
    assert answer.status_code == 422
    assert read(answer).field(purpose.text).value.strip() == long.strip()
    assert status_of(people, guarded) is None
    owner.post("/models/lab/guarded/subscription", page="/models/lab/guarded", justification="For <b>research</b>.")
    assert status_of(people, guarded) == "pending"
    assert "Pending" in (owner.page("/models/lab/guarded").status or "")
    access = owner.page("/models/lab/guarded?tab=access").section("Your access")
    assert "“For <b>research</b>.”" in access.texts
    assert "Request access" not in access.buttons


def test_a_denial_shows_its_reason_and_may_be_followed_by_a_new_request(
    people: People, guarded: Model, signed_in: Callable[[str], Browser]
) -> None:
    owner = signed_in("owner")
    owner.post("/models/lab/guarded/subscription", justification="Research.")
    found = subscriptions.live(people.owner, guarded)
    assert found is not None
    transaction(subscriptions.decide, found, "deny", by=people.admin, reason="Use the small one.")
    access = owner.page("/models/lab/guarded?tab=access").section("Your access")
    assert access.alert.heading == "Your request was denied"
    assert "Use the small one." in access.alert
    assert "Use the small one." in owner.page("/subscriptions").row("lab/guarded").cell("Requested, decided")
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


def names(page: Page) -> list[str]:
    """The models of a catalogue page, in their order: of its cards, or of its table."""
    return page.row_names or [link.text for link in page.links if link.href == f"/models/{link.text}"]


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
        page = owner.page(f"/models?{asked}&view={view}", fragment=True)
        assert names(page) == found.split(), view
        assert bool(found) or "No model fits this search." in page.texts


@pytest.mark.usefixtures("catalogue")
def test_each_value_of_a_filter_tells_how_many_models_it_would_leave(signed_in: Callable[[str], Browser]) -> None:
    owner = signed_in("owner")
    everything = owner.page("/models")
    for filter, words in (
        ("Type", {"Chat (3)", "Embeddings (1)"}),
        ("Provider", {"Lab (3)", "Switched off (1)"}),
        ("Access", {"Subscribed (1)", "Restricted (2)", "Open (2)"}),
        ("Feature", {"Tools (2)", "Vision (1)"}),
        ("Status", {"Available (2)", "Deprecated (1)", "Unavailable (1)", "New (3)"}),
    ):
        assert words <= set(everything.field(filter).choices), filter
    narrowed = owner.page("/models?access=restricted")
    for filter, words in (
        ("Type", {"Chat (1)"}), ("Provider", {"Lab (2)"}), ("Access", {"Restricted (2)", "Open (2)"}),
        ("Feature", {"Tools (1)"}),
    ):  # fmt: skip
        assert words <= set(narrowed.field(filter).choices), filter
    assert "Vision (" not in " ".join(narrowed.field("Feature").choices)
    assert "Remove filter Access: Restricted" in narrowed.links
    assert narrowed.section("More filters")
    opened = owner.page("/models?most=2&context=8000")
    assert opened.section("More filters (2)")
    assert {"Remove filter Context: from 8,000 tokens", "Remove filter Input price up to: 2"} <= {
        link.text for link in opened.links
    }


@pytest.mark.usefixtures("catalogue")
def test_badges_and_my_access_stand_at_each_model(signed_in: Callable[[str], Browser]) -> None:
    page = signed_in("owner").page("/models?view=table")
    assert page.row("alpha").cell("My access") == "Subscribed"
    assert page.row("beta").cell("My access") == "On request"
    badges = {row.name: [text for text in row.cell("Model").texts[2:] if text != "Compare"] for row in page.rows}
    assert (badges["alpha"], badges["beta"]) == (["New"], ["Restricted access", "New"])
    assert [badge.split(" since ")[0] for badge in badges["delta"]] == ["Unavailable"]
    assert badges["gamma"][1].startswith(f"Deprecated since {now().day} ")


def test_a_model_whose_calls_fail_is_failing_wherever_it_is_shown_and_people_see_no_reason(
    people: People, small: Model, wire: redis.Redis, signed_in: Callable[[str], Browser]
) -> None:
    tell(wire, small.deployments[0].id, failures=3)
    owner, admin = signed_in("owner"), signed_in("admin")
    for page in (owner.page("/models"), owner.page("/models?view=table"), owner.page("/models/small")):
        assert any(text.startswith("Failing since ") for text in page.texts)
    assert owner.page("/models/small").alert.heading == "This model is failing"
    assert names(owner.page("/models?status=failing")) == ["small"]
    assert names(owner.page("/models?status=available")) == []
    [row] = owner.get("/models?format=json", buffered=True).get_json()["data"]
    assert row["available"] is False
    for path in ("/models", "/models?view=table", "/models/small"):
        assert "10.0.0.7" not in owner.get(path).text, path
        assert "10.0.0.7" in admin.get(path).text, path
    assert "Failing since" in admin.page("/admin/models").row("small").cell("Status")
    tell(wire, small.deployments[0].id, answers=100)
    assert names(owner.page("/models?status=failing")) == []


def test_the_table_tells_the_longest_answer_and_how_each_model_has_answered_of_late(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    for name, longest in (("short", 1_024), ("long", 16_384)):
        transaction(make_model, people.admin, name, max_output_tokens=longest)
    at_ms = clock.now_ms()
    for outcome in ("ok", "ok", "ok", "error"):
        use(people.stranger, small, at_ms, outcome=outcome, ttft_ms=250)
    owner = signed_in("owner")
    page = owner.page("/models?view=table&sort=-longest")
    assert [name for name in page.row_names if name != "small"] == ["long", "short"]
    assert "16.3k out" in page.row("long").cell("Context").texts
    assert page.row("small").cell("Last 24 h") == "75% ok 250 ms 2941 tokens/s"
    assert page.row("long").cell("Last 24 h") == "–"


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
    assert "m18" in names(owner.page("/models"))
    assert count_queries() == few


def test_a_description_is_read_as_markdown_and_does_no_more(
    people: People, signed_in: Callable[[str], Browser]
) -> None:
    transaction(make_model, None, "wordy", description="# Good\n\nat **sums**, <script>x</script> [y](javascript:z)")
    owner = signed_in("owner")
    answer = owner.get("/models/wordy")
    page = read(answer)
    assert page.section("About").headings == ["About", "Good"]
    assert "<strong>sums</strong>" in answer.text
    assert "<script>x" not in answer.text
    assert 'href="javascript' not in answer.text
    assert "at sums" in owner.page("/models").section("wordy")


def test_performance_is_that_of_everybody_and_names_nobody(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    owner = signed_in("owner")
    assert "No figures yet" in owner.page("/models/small?tab=performance").headings
    now_ms = clock.now_ms()
    stream = {"stream": True, "duration_ms": 3000, "ttft_ms": 500, "completion_tokens": 100}
    use(people.owner, small, now_ms, **stream)
    use(people.stranger, small, now_ms, **stream)
    use(people.stranger, small, now_ms, stream=False, outcome="error", status=502)
    use(people.stranger, small, now_ms - 2 * 86_400_000, stream=False)
    answer = owner.get("/models/small?tab=performance")
    assert read(answer).section("Uptime").table().row_names[0] == f"{clock.now():%H}:00"
    answered = read(answer).table("How the model has answered everybody")
    assert answered.row("Last 24 hours").cells == {
        "Period": "Last 24 hours", "Requests": "3", "Failed": "33.3%", "First token": "500 ms", "Tokens/s": "40.0",
        "Streams": "66.7%",
    }  # fmt: skip
    week = answered.row("Last 7 days")
    assert (week.cell("Requests"), week.cell("Failed")) == ("4", "25%")
    assert answered.row("Last 30 days").cell("Requests") == "4"
    assert "stranger" not in answer.text
    assert answer.text.count("<svg") == owner.get("/models/small?tab=performance&span=7d").text.count("<svg")
    guarded = transaction(make_model, None, "hidden-one", status="hidden")
    assert owner.get(f"/models/{guarded.name}?tab=performance").status_code == 404


def test_a_model_page_shows_price_limits_health_and_a_first_call_at_a_glance(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    owner = signed_in("owner")
    page = owner.page("/models/small")
    assert page.headings[1:6] == ["Price", "Limits and capabilities", "Health", "Quickstart", "About"]
    assert "No requests in 24 h" in page.section("Health")
    for duration_ms in (1000, 3000, 9000):
        use(
            people.owner, small, clock.now_ms(), stream=True, duration_ms=duration_ms, ttft_ms=500, completion_tokens=50
        )
    use(people.owner, small, clock.now_ms(), outcome="error", status=502)
    health = owner.page("/models/small").section("Health")
    assert health.facts == {
        "Response, p50": "3.0 s",
        "First token, p50": "500 ms",
        "Tokens/s": "20.0",
        "Requests, 24 h": "4",
    }
    assert "75% up in 24 h" in health
    assert "small" in owner.page("/models/small").code("curl")


def test_uptime_and_times_of_each_provider_stand_beside_those_of_the_model(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    other = transaction(providers.create, by=None, name="Other", kind="echo", config={}).id
    now_ms = clock.now_ms()
    use(people.owner, small, now_ms, duration_ms=1000)
    use(people.owner, small, now_ms, provider_id=other, duration_ms=5000)
    use(people.owner, small, now_ms, provider_id=other, outcome="error", status=502)
    use(people.owner, small, now_ms - 20 * 86_400_000, provider_id="gone", duration_ms=100)
    owner = signed_in("owner")
    times = owner.page("/models/small?tab=performance").table("Response times by provider")
    assert times.column("Provider") == ["All", "Echo", "Other"]
    assert times.column("Uptime") == ["66.7%", "100%", "50%"]
    assert times.column("Response p50") == ["1.0 s", "1.0 s", "5.0 s"]
    month = owner.page("/models/small?tab=performance&span=30d")
    assert month.table("Response times by provider").column("Provider") == ["All", "(removed)", "Echo", "Other"]
    assert len(month.section("Uptime").table().rows) == 30


def test_admins_see_how_each_deployment_does_and_others_do_not(
    people: People, wire: redis.Redis, signed_in: Callable[[str], Browser]
) -> None:
    first, second = (
        transaction(providers.create, by=None, name=name, kind="echo", config={}) for name in ("First", "Second")
    )
    at = [DeploymentSpec(provider_id=one.id, upstream_model=f"{one.name}-up") for one in (first, second)]
    model = transaction(make_model, None, "served-twice", deployments=at)
    ways = {one.provider.name: one.id for one in model.deployments}
    use(people.owner, model, clock.now_ms(), provider_id=second.id, deployment_id=ways["Second"], duration_ms=2000)
    tell(wire, ways["First"], failures=3)
    page = signed_in("auditor").page("/models/served-twice?tab=performance")
    table = page.table("How each deployment does")
    assert table.column("Deployment") == ["First First-up", "Second Second-up"]
    assert table.column("Health")[0].text.startswith("Failing since ")
    assert (table.column("Attempts")[0], table.column("Response p50")) == ("3 3 failed", ["–", "2.0 s"])
    assert "First-up" not in signed_in("owner").get("/models/served-twice?tab=performance").text


def test_the_catalogue_is_sorted_by_latency_and_throughput_and_what_nobody_called_comes_last(
    people: People, signed_in: Callable[[str], Browser]
) -> None:
    owner = signed_in("owner")
    made = {name: transaction(make_model, None, name) for name in ("idle", "quick", "steady")}
    assert names(owner.page("/models?sort=latency")) == ["idle", "quick", "steady"]
    at_ms = clock.now_ms()
    use(people.owner, made["quick"], at_ms, stream=True, duration_ms=1100, ttft_ms=100, completion_tokens=10)
    use(people.owner, made["steady"], at_ms, stream=True, duration_ms=1900, ttft_ms=900, completion_tokens=80)
    for query, found in (
        ("latency", ["quick", "steady", "idle"]),
        ("-latency", ["steady", "quick", "idle"]),
        ("-throughput", ["steady", "quick", "idle"]),
        ("throughput", ["quick", "steady", "idle"]),
    ):
        for view in ("cards", "table"):
            assert names(owner.page(f"/models?sort={query}&view={view}")) == found, query
    assert "First token 100 ms · 10 tokens/s" in owner.page("/models")


def test_the_access_tab_lists_the_keys_that_can_call_the_model(
    people: People, small: Model, guarded: Model, signed_in: Callable[[str], Browser]
) -> None:
    owner = signed_in("owner")
    make_key(people.owner, name="for-everything")
    id = subscribe(people.owner, small)
    subscribe(people.stranger, small)
    make_key(people.stranger, name="not-mine")
    page = owner.page("/models/small?tab=access")
    assert [cell.links for cell in page.table("Keys that can call small").column("Key")] == [["for-everything"]]
    assert page.section("Your access").link("History of your subscription").href == f"/subscriptions/{id}"
    create = page.section("Keys that can call it").link("Create a key for this model")
    assert create.href == "/keys/new?model=small"
    assert "not-mine" not in page
    assert "for-everything" not in owner.page("/models/lab/guarded?tab=access")
    assert owner.get("/models/small?tab=nonsense").status_code == 200
