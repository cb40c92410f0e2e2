"""The rollups of seeded rows, exactly as posting would have kept them.

Sums are made in the server; only the names of groups, which are digests of Python's, go out to be made here.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from app.ledger.measures import DIMENSIONS, MEASURES, group_key
from app.ledger.summaries import CUTS, HOURLY_CUTS
from app.metering import quantities

NAMES = ", ".join(DIMENSIONS)
TOLD = ", ".join(MEASURES)
USED = ", ".join(quantities.NAMES)
ADDED = ", ".join(f"sum({name})::bigint AS {name}" for name in MEASURES)
DIGEST = "md5(" + " || chr(31) || ".join(f"{name}::text" for name in DIMENSIONS) + ")"
STARTS = {
    "day": "start_ms - start_ms % 86400000",
    "week": "start_ms - (start_ms + 259200000) % 604800000",  # the first of January 1970 was a Thursday
    "month": "(extract(epoch FROM date_trunc('month', to_timestamp(start_ms / 1000) AT TIME ZONE 'UTC')"
    " AT TIME ZONE 'UTC') * 1000)::bigint",
}

HOURS = f"""
CREATE TEMP TABLE seed_sum AS
SELECT start_ms, {NAMES}, {DIGEST} AS digest, {ADDED} FROM (
  SELECT at_ms - at_ms % 3600000 AS start_ms, person_id, coalesce(key_id, '') AS key_id, coalesce(team_id, '') AS team_id,
    coalesce(subscription_id, '') AS subscription_id, model, coalesce(provider_id, '') AS provider_id, endpoint, api_type,
    stream, 1 AS requests, (outcome = 'error')::int AS errors, (outcome = 'cancelled')::int AS cancelled,
    {USED}, cost_nano, overdraft_nano, duration_ms,
    coalesce(ttft_ms, 0) AS ttft_ms, (ttft_ms IS NOT NULL)::int AS ttft_count, refused
  FROM usage_entry WHERE kind = 'usage') AS calls
GROUP BY start_ms, {NAMES}
"""  # noqa: S608


def _cut(cut: str, kind: str, source: str, start: str, where: str) -> str:
    """The sums of a cut, from finer ones."""
    kept = CUTS[cut]
    empty = {name: "false" if name == "stream" else "''" for name in DIMENSIONS if name not in kept}
    names = ", ".join(f"{empty[name]} AS {name}" if name in empty else name for name in DIMENSIONS)
    return (
        f"SELECT '{cut}' AS cut, '{kind}' AS kind, {start} AS start_ms, {names}, {ADDED} FROM {source}"  # noqa: S608
        f" WHERE {where} GROUP BY {', '.join((start, *kept))}"
    )


def make(connection: Connection[Any]) -> None:
    """Fill the hours, what is longer, and the cuts, in the caller's transaction; the tables are empty."""
    connection.execute(HOURS.encode())
    _name(connection, "seed_sum", "seed_group")
    connection.execute(
        f"INSERT INTO usage_hourly (group_key, start_ms, {NAMES}, {TOLD}, derived)"  # noqa: S608
        f" SELECT group_key, start_ms, {NAMES}, {TOLD}, true FROM seed_sum JOIN seed_group USING (digest)"
        " ORDER BY start_ms".encode()
    )
    connection.execute(
        f"CREATE TEMP TABLE seed_named AS SELECT group_key, {NAMES} FROM seed_group JOIN seed_group_names USING (digest);"  # noqa: S608
        " ANALYZE seed_named, usage_hourly".encode()
    )
    finer, where = "usage_hourly", "true"
    for kind, start in STARTS.items():  # weeks and months from days, of which there are fewer
        connection.execute(
            f"INSERT INTO usage_rollup (group_key, kind, start_ms, {NAMES}, {TOLD})"  # noqa: S608
            f" SELECT group_key, '{kind}', start_ms, {NAMES}, {TOLD} FROM seed_named JOIN (SELECT group_key,"
            f" {start} AS start_ms, {ADDED} FROM {finer} WHERE {where} GROUP BY group_key, {start}) AS sums"
            " USING (group_key) ORDER BY 3".encode()
        )
        finer, where = "usage_rollup", "kind = 'day'"
    connection.execute("ANALYZE usage_rollup")
    for cut in CUTS:
        connection.execute("DROP TABLE IF EXISTS seed_cut, seed_cut_group, seed_cut_group_names")
        day = _cut(cut, "day", "usage_rollup", "start_ms", "kind = 'day'")
        connection.execute(f"CREATE TEMP TABLE seed_cut AS SELECT *, {DIGEST} AS digest FROM ({day}) AS days".encode())  # noqa: S608
        others = [_cut(cut, kind, "seed_cut", STARTS[kind], "kind = 'day'") for kind in ("week", "month")]
        if cut in HOURLY_CUTS:
            others.append(_cut(cut, "hour", "usage_hourly", "start_ms", "true"))
        connection.execute(
            f"INSERT INTO seed_cut SELECT *, {DIGEST} FROM ({' UNION ALL '.join(others)}) AS others".encode()  # noqa: S608
        )
        _name(connection, "seed_cut", "seed_cut_group", cut)
        connection.execute(
            f"INSERT INTO usage_cut (cut, kind, group_key, start_ms, {NAMES}, {TOLD})"  # noqa: S608
            f" SELECT cut, kind, group_key, start_ms, {NAMES}, {TOLD} FROM seed_cut JOIN seed_cut_group USING (digest)"
            " ORDER BY start_ms".encode()
        )


def _name(connection: Connection[Any], table: str, groups: str, *more: str) -> None:
    """Tables of the groups' names: beside the server's own digests of them, and beside what the groups are of; `more`
    is part of each name."""
    connection.execute(f"CREATE TEMP TABLE {groups} (digest text, group_key text)".encode())
    found: list[tuple[str, str]] = []
    connection.execute(
        f"CREATE TEMP TABLE {groups}_names AS SELECT DISTINCT ON (digest) digest, {NAMES} FROM {table}".encode()  # noqa: S608
    )
    with connection.cursor().copy(f"COPY {groups}_names TO STDOUT".encode()) as rows:
        rows.set_types(["text"] * (1 + len(DIMENSIONS)))
        for digest, *group in rows.rows():
            found.append((str(digest), group_key((*group[:-1], group[-1] == "t", *more))))
    with connection.cursor().copy(f"COPY {groups} FROM STDIN".encode()) as written:
        for pair in found:
            written.write_row(pair)
    connection.execute(f"ANALYZE {groups}".encode())
