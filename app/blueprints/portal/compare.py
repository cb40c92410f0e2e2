"""Two to four models side by side: what they cost, hold and can, and how they do. The catalogue's boxes lead here."""

from __future__ import annotations

from flask import Blueprint, Response, request
from sqlalchemy import select

from app import clock
from app.blueprints.portal.person import me
from app.domain.catalog import OFFERED, Model
from app.domain.errors import NotFound
from app.extensions import db
from app.reports import latency, performance
from app.web.render import render
from app.workflows import catalog_changes, provider_health

MOST = 4
MOST_OFFERED = 500  # names that the box for another model offers

bp = Blueprint("compare", __name__)


@bp.get("/models/compare")
def index() -> Response:
    person = me()
    names = list(dict.fromkeys(name for name in request.args.getlist("model") if name))
    models: list[Model] = []
    unknown: list[str] = []
    for name in names[:MOST]:
        try:
            models.append(catalog_changes.visible(person, name[:200]))
        except NotFound:
            unknown.append(name[:200])
    days = {model.name: performance.last_day(model.name) for model in models}
    now_ms = clock.now_ms()
    offered = select(Model.name).where(Model.status.in_(OFFERED)).order_by(Model.name).limit(MOST_OFFERED)
    return render(
        "portal/catalog/compare.html",
        models=models,
        unknown=unknown,
        left_out=len(names) - len(names[:MOST]),
        most=MOST,
        days=days,
        times={name: latency.of_model(name, day.points[0].start_ms, now_ms + 1) for name, day in days.items()},
        health=provider_health.of_models(models),
        latest=catalog_changes.access(person, [model.id for model in models]),
        others=[name for name in db.session.scalars(offered) if name not in days],
    )
