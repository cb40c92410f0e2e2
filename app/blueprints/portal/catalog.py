"""The catalogue: which models there are, what they cost, how to call them, how they perform, and how to request
access."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from flask import Blueprint, Response, request, url_for
from flask_wtf import FlaskForm
from wtforms import HiddenField, TextAreaField
from wtforms.validators import Length

from app import clock
from app.blueprints.portal.person import me, my_team
from app.domain import keys, subscriptions
from app.domain.catalog import CAPABILITIES, Model, with_deployments
from app.domain.errors import DomainError
from app.domain.person import Person
from app.domain.teams import Team
from app.extensions import db, transaction
from app.metering import money
from app.metering.quantities import PRICES
from app.pages.snippets import VARIABLE, base_url, can_stream, quickstart
from app.pages.usage import look_up_names
from app.reports import latency, performance
from app.reports.latency import ModelSample
from app.reports.performance import Span
from app.web import exports
from app.web.forms import blame
from app.web.lists import filters_from_request, list_page
from app.web.render import render, see_other, toast_next
from app.web.request_cache import memberships
from app.workflows import catalog_changes, provider_health, provider_traffic
from app.workflows.catalog_changes import ACCESSES, STATUSES, CatalogFilter, Facet

TABS = {"overview": "Overview", "quickstart": "Quickstart", "performance": "Performance", "access": "Access"}
CONTEXTS = (8_000, 32_000, 128_000, 200_000, 1_000_000)
SORTS = {
    "name": "Name, A to Z",
    "-name": "Name, Z to A",
    "-created": "Newest first",
    "created": "Oldest first",
    "price": "Input price: low to high",
    "-price": "Input price: high to low",
    "output": "Output price: low to high",
    "-output": "Output price: high to low",
    "-context": "Context: high to low",
    "context": "Context: low to high",
    "-longest": "Max output: high to low",
    "longest": "Max output: low to high",
    "latency": "Time to first token: low to high",
    "-throughput": "Tokens per second: high to low",
}
MEASURED: dict[str, Literal["mean_ttft_ms", "tokens_per_s"]] = {"latency": "mean_ttft_ms", "throughput": "tokens_per_s"}
SPANS = {"24h": "24 hours", "7d": "7 days", "30d": "30 days"}


class AccessForm(FlaskForm):
    """Requests access. A restricted model needs a justification."""

    justification = TextAreaField(
        "What do you need it for?",
        [Length(max=subscriptions.LONGEST_TEXT, message="Use at most %(max)d characters.")],
        description=f"An administrator reads this before deciding. At most {subscriptions.LONGEST_TEXT} characters.",
    )
    team = HiddenField()


bp = Blueprint("catalog", __name__)


@bp.get("/models")
def index() -> Response:
    person, filters = me(), _filters_from_request()
    view = "table" if request.args.get("view") == "table" else "cards"
    return list_page(
        "portal/catalog",
        catalog_changes.find(person, filters),
        _columns(),
        file=lambda file_format, rows: exports.answer(
            file_format, "models", _export_columns(person, filters.failing), rows
        ),
        page=lambda listing: {
            "recent": performance.by("model", [item.name for item in listing.items]),
            "latest": catalog_changes.access(person, [item.id for item in listing.items]),
            "health": provider_health.of_models(listing.items),
        },
        load=[with_deployments()],
        search=filters.search or "",
        filters=_fields(filters, catalog_changes.facets(person, filters)),
        sorts=SORTS,
        view=view,
        is_new=catalog_changes.is_new,
    )


@bp.get("/models/<path:name>")
def detail(name: str) -> Response:
    model, tab = catalog_changes.visible(me(), name), request.args.get("tab", "")
    return _page(model, AccessForm(formdata=None), tab=tab, team=my_team(request.args.get("team")))


@bp.post("/models/<path:name>/subscription")
def subscribe(name: str) -> Response:
    person = me()
    model = catalog_changes.visible(person, name)
    form = AccessForm()
    team = my_team(form.team.data)
    if model.restricted and not (form.justification.data or "").strip():
        form.validate()
        form.justification.errors = ["Enter what you need this model for."]
        return _page(model, form, 422, team=team)
    if not form.validate_on_submit():
        return _page(model, form, 422, team=team)
    try:
        subscription, is_new = transaction(
            subscriptions.request, person, model, by=person, justification=form.justification.data or None, team=team
        )
    except DomainError as error:
        blame(form, error)
        return _page(model, form, 422, team=team)
    if not is_new:
        toast_next(
            "info",
            f"{f'{team.name} has' if team else 'You have'} asked for {name} already: it is {subscription.status}.",
        )
    elif subscription.status == "pending":
        toast_next("success", f"Your request for {name} is sent. An administrator will decide.")
    else:
        whose = f"{team.name} is" if team else "You are"
        toast_next("success", f"{whose} subscribed to {name}. Try it here, or create a key to call it.")
    stays = subscription.status == "pending" or team is not None
    team_id = team.id if team else None
    return see_other(url_for("portal.catalog.detail", name=name, tab="access" if stays else None, team=team_id))


def _page(model: Model, form: AccessForm, status: int = 200, tab: str = "access", team: Team | None = None) -> Response:
    person = me()
    tab = tab if tab in TABS else "overview"
    latest = catalog_changes.access(person, [model.id]).get(model.id)
    values: dict[str, Any] = {}
    form.justification.flags.required = model.restricted
    match tab:
        case "overview":
            day = performance.last_day(model.name)
            values = {
                "day": day,
                "times": _times(model, day),
                "panes": quickstart(model, stream=False),
                "variable": VARIABLE,
            }
        case "quickstart":
            stream = request.args.get("stream") == "1"
            panes = quickstart(model, stream=stream)
            values = {"panes": panes, "stream": stream, "can_stream": can_stream(model), "variable": VARIABLE}
        case "performance":
            recent, span = performance.of_model(model.name), request.args.get("span", "")
            span = span if span in SPANS else "24h"
            chosen = {"24h": recent.day, "7d": recent.week, "30d": recent.month}[span]
            upstreams = look_up_names({"provider": set(chosen.providers)})
            values = {
                "recent": recent,
                "span": span,
                "spans": SPANS,
                "chosen": chosen,
                "times": _times(model, chosen),
                "upstreams": {id: name for (_, id), name in upstreams.items()},
                "deployments": _deployments(model) if person.sees_everything else {},
            }
        case "access":
            if team is not None:
                of_team = subscriptions.of_team(team).where(subscriptions.Subscription.model_id == model.id)
                latest = db.session.scalar(of_team.limit(1))
            form.team.data = team.id if team else ""
            callable_now = latest is not None and latest.status == "active"
            values = {
                "usable_keys": keys.using(person, model.name, team) if callable_now else [],
                "team": team,
                "memberships": memberships(person),
                "may_end": latest is not None and subscriptions.may_change(person, latest),
            }
    health = provider_health.of_models([model])
    return render(
        "portal/catalog/model.html",
        "portal/catalog/_access.html" if tab == "access" else None,
        status=status,
        model=model,
        form=form,
        subscription=latest,
        is_new=catalog_changes.is_new,
        health=health,
        tab=tab,
        tabs=TABS,
        base_url=base_url(),
        **values,
    )


def _times(model: Model, span: Span) -> ModelSample:
    """The times of the model's answers in a span that ends now."""
    return latency.of_model(model.name, span.points[0].start_ms, clock.now_ms() + 1)


def _deployments(model: Model) -> dict[str, Any]:
    """The health and the last hour's traffic of each deployment, for those who see how models are served."""
    traffic = provider_traffic.of_deployments(model.deployments)
    health = provider_health.of_deployments(model.deployments, traffic)
    return {one.id: (one, health[one.id], traffic.get(one.id)) for one in model.deployments}


def _columns() -> dict[str, Any]:
    """The sortable columns, with the measured one that this request sorts by."""
    name = request.args.get("sort", "").removeprefix("-")
    measured = {name: performance.ranking(MEASURED[name], Model.name)} if name in MEASURED else {}
    return catalog_changes.columns() | measured


def _filters_from_request() -> CatalogFilter:
    """Reads the filters of the URL; invalid values count as missing."""
    values = filters_from_request(
        longest=200,
        provider=None,
        capability=CAPABILITIES,
        feature=None,
        access=ACCESSES,
        status=STATUSES,
        context=[str(size) for size in CONTEXTS],
    )
    return CatalogFilter(
        search=values.search or None,
        provider=values["provider"][:36] or None,
        capability=values["capability"] or None,
        feature=values["feature"][:50] or None,
        access=values["access"] or None,
        status=values["status"] or None,
        least_nano=_amount("least"),
        most_nano=_amount("most"),
        context=int(values["context"]) if values["context"] else None,
        failing=frozenset(one.id for one in provider_health.not_well() if one.served and one.state == "failing"),
    )


def _amount(name: str) -> int | None:
    text = request.args.get(name, "").strip()
    try:
        return money.parse(text) if text else None
    except money.MoneyError:
        return None


def _fields(filters: CatalogFilter, facets: Mapping[str, list[Facet]]) -> list[dict[str, Any]]:
    """The filters for the toolbar. Each value shows how many models it would leave."""

    def choice(name: str, label: str, *, more: bool = False) -> dict[str, Any]:
        chosen = getattr(filters, name)
        options = [
            (facet.value, f"{facet.label} ({facet.count})")
            for facet in facets[name]
            if facet.count or facet.value == chosen
        ]
        if chosen and chosen not in dict(options):
            options.append((chosen, f"{chosen} (0)"))
        return {"name": name, "label": label, "options": options, "value": chosen, "more": more}

    def price(name: str, label: str, nano: int | None) -> dict[str, Any]:
        return {
            "name": name, "label": label, "kind": "text", "inputmode": "decimal", "value": money.optional_text(nano),
            "more": True,
        }  # fmt: skip

    contexts = [(str(size), f"from {size:,} tokens") for size in CONTEXTS]
    return [
        choice("capability", "Type"),
        choice("provider", "Provider"),
        choice("access", "Access"),
        choice("feature", "Feature", more=True),
        choice("status", "Status", more=True),
        {"name": "context", "label": "Context", "options": contexts, "value": filters.context, "more": True},
        price("least", "Input price from", filters.least_nano),
        price("most", "Input price up to", filters.most_nano),
    ]


def _export_columns(person: Person, failing: Collection[str]) -> dict[str, Callable[[Model], Any]]:
    subscription_of = catalog_changes.access(person)

    def price(name: str) -> Callable[[Model], str | None]:
        return lambda item: item.price.decimals()[name] if item.price else None

    return {
        "name": lambda item: item.name,
        "display_name": lambda item: item.display_name,
        "providers": lambda item: sorted({one.provider.name for one in item.deployments}),
        "capabilities": lambda item: item.capabilities,
        "features": lambda item: item.features,
        "context_window": lambda item: item.context_window,
        "max_output_tokens": lambda item: item.max_output_tokens,
        **{name: price(name) for name in PRICES},
        "restricted": lambda item: item.restricted,
        "status": lambda item: item.status,
        "available": lambda item: item.is_served and item.id not in failing,
        "my_access": lambda item: subscription_of[item.id].status if item.id in subscription_of else None,
        "created_at": lambda item: item.created_at,
    }
