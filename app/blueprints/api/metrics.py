"""Summary statistics of all calls, for programs that watch this Portico."""

from __future__ import annotations

from app.blueprints.api.contract import route
from app.domain.errors import Invalid
from app.reports import metrics


class Query(metrics.Span, kw_only=True):
    """`end` is exclusive. By default the last 24 hours."""


@route("GET", "/api/metrics", scope="admin", query=Query, answer=metrics.Metrics)
def show(query: Query) -> metrics.Metrics:
    """Returns counts, times, tokens and kinds of errors of all calls in a span."""
    if query.start and query.end and query.start > query.end:
        raise Invalid("Choose an end that is not before the start.", "end")
    return metrics.measure(query)
