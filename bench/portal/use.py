"""What was used: the ledger's rows and the sums of budgets, made in the server.

Few keys use much and most use little; days have their hours, weeks their days, and use grows from month to month.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection, sql

from bench.portal.sizes import Sizes

ENTRIES = """
CREATE TEMP TABLE seed_hour AS
WITH weighed AS (
  SELECT start_ms,
         (1 + (start_ms - first_ms) / (now_ms - first_ms)::double precision)
         * CASE WHEN extract(isodow FROM pg_temp.at(start_ms) AT TIME ZONE 'UTC') > 5 THEN 0.25 ELSE 1 END
         * (0.3 + exp(-power((extract(hour FROM pg_temp.at(start_ms) AT TIME ZONE 'UTC') - 13) / 4, 2)))
         * least(1, (now_ms - start_ms) / 3600000.0) AS weight
  FROM (SELECT now_ms, now_ms - now_ms % 3600000 - {days} * 86400000::bigint AS first_ms FROM seed_now) AS span
  CROSS JOIN LATERAL generate_series(first_ms, now_ms - 1, 3600000) AS start_ms
), summed AS (
  SELECT start_ms, round({rows} * sum(weight) OVER (ORDER BY start_ms) / sum(weight) OVER ())::bigint AS last_i FROM weighed
)
SELECT start_ms, coalesce(lag(last_i) OVER (ORDER BY start_ms), 0) + 1 AS first_i, last_i FROM summed;

INSERT INTO usage_entry (
  request_id, attempt, kind, at_ms, person_id, key_id, secret_id, team_id, subscription_id, model, endpoint, api_type,
  provider_id, deployment_id, outcome, status, error_code, error_message, finish_reason, stream, estimated,
  prompt_tokens, cached_tokens, completion_tokens, images, audio_ms, cost_nano, hold_nano, overdraft_nano, moved_nano,
  price_id, duration_ms, ttft_ms, attempts, scopes)
SELECT pg_temp.made_id(at_ms, i, 'call'), 1, 'usage', at_ms, person_id, key_id, secret_id, team_id, subscription_id, model,
  CASE api_type WHEN 'chat' THEN CASE WHEN pg_temp.chance(key_n, 90) < 0.1 THEN '/v1/responses'
       ELSE '/v1/chat/completions' END WHEN 'audio' THEN '/v1/audio/transcriptions' ELSE '/v1/embeddings' END,
  CASE api_type WHEN 'audio' THEN 'transcription' ELSE api_type END, provider_id, deployment_id, outcome,
  CASE outcome WHEN 'ok' THEN 200 WHEN 'cancelled' THEN 499 ELSE error_status END,
  CASE outcome WHEN 'error' THEN 'http_' || error_status END,
  CASE outcome WHEN 'error' THEN 'The upstream answered with ' || error_status || '.' END,
  CASE WHEN outcome = 'ok' AND api_type = 'chat' THEN 'stop' END, stream, false, prompt, cached, completion, 0,
  CASE api_type WHEN 'audio' THEN prompt * 10 ELSE 0 END, cost, cost, 0, 0, price_id, duration_ms,
  CASE WHEN stream AND outcome = 'ok' THEN duration_ms / 5 END,
  CASE WHEN fell_back THEN json_build_array(
      json_build_object('deployment_id', deployment_id, 'provider_id', provider_id, 'duration_ms', 30, 'error', 'http_503'),
      json_build_object('deployment_id', deployment_id, 'provider_id', provider_id, 'duration_ms', duration_ms - 30))
    ELSE json_build_array(
      json_build_object('deployment_id', deployment_id, 'provider_id', provider_id, 'duration_ms', duration_ms)) END,
  json_build_array(
    json_build_array('key', key_id, month), json_build_array('subscription', subscription_id, 'total'),
    json_build_array(CASE WHEN team_id IS NULL THEN 'user' ELSE 'team' END, coalesce(team_id, person_id), month),
    json_build_array('organisation', 'default', month))
FROM (
  SELECT *, round(((prompt - cached) * input_nano + cached * (input_nano / 2) + completion * output_nano)
                  / 1000000.0)::bigint AS cost
  FROM (
    SELECT c.i, least(c.start_ms + floor(3600000 * pg_temp.chance(c.i, 80))::bigint, (SELECT now_ms FROM seed_now)) AS at_ms,
      'month-' || (extract(epoch FROM date_trunc('month', pg_temp.at(c.start_ms) AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'))
        ::bigint AS month,
      k.n AS key_n, k.person_id, k.id AS key_id, k.secret_id, k.team_id, s.id AS subscription_id, m.name AS model,
      m.api_type, m.price_id, m.input_nano, m.output_nano, d.provider_id, d.id AS deployment_id, c.outcome,
      (ARRAY[502, 503, 400, 504, 500])[pg_temp.pick(c.i, 81, 5, 2)] AS error_status,
      m.api_type = 'chat' AND (k.streams <> (pg_temp.chance(c.i, 82) < 0.05)) AS stream,
      CASE WHEN c.outcome = 'error' THEN 0 ELSE c.prompt END AS prompt,
      CASE WHEN c.outcome <> 'error' AND m.api_type = 'chat' AND pg_temp.chance(c.i, 83) < 0.2 THEN c.prompt / 2 ELSE 0
        END AS cached,
      CASE WHEN c.outcome = 'error' OR m.api_type <> 'chat' THEN 0
           ELSE floor(exp(2 + 5 * pg_temp.chance(c.i, 84)))::bigint END AS completion,
      100 + floor(exp(4 + 4 * pg_temp.chance(c.i, 85)))::bigint AS duration_ms,
      c.outcome = 'ok' AND pg_temp.chance(c.i, 86) < 0.02 AS fell_back
    FROM (
      SELECT h.start_ms, i, pg_temp.pick(i, 87, {keys}, 3) AS key_n,
        floor(exp(4 + 4 * pg_temp.chance(i, 88)))::bigint AS prompt,
        CASE WHEN pg_temp.chance(i, 89) < 0.03 THEN 'error' WHEN pg_temp.chance(i, 89) < 0.05 THEN 'cancelled' ELSE 'ok'
          END AS outcome
      FROM seed_hour h CROSS JOIN LATERAL generate_series(h.first_i, h.last_i) AS i) AS c
    JOIN seed_key k ON k.n = c.key_n
    JOIN (SELECT payer, max(slots) AS slots FROM seed_subscription GROUP BY payer) AS z ON z.payer = k.payer
    JOIN seed_subscription s ON s.payer = k.payer AND s.slot = pg_temp.pick(c.i, 91, z.slots, 2)
    JOIN seed_model m ON m.n = s.model
    JOIN seed_deployment d ON d.model = m.n
      AND d.j = CASE WHEN pg_temp.chance(c.i, 92) < 0.95 THEN 1 ELSE pg_temp.pick(c.i, 93, m.deployments, 1) END
  ) AS drawn
) AS priced;
"""

# What the entries' scopes say, from the columns that they are made of; and what is kept beside budgets and keys.
SPENT = """
CREATE TEMP TABLE seed_spent AS
SELECT key_id, subscription_id, team_id, person_id, 'month-' || (extract(epoch FROM
         date_trunc('month', pg_temp.at(day_ms) AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'))::bigint AS month,
       sum(cost_nano) AS cost_nano, sum(entries) AS entries, max(at_ms) AS at_ms
FROM (SELECT key_id, subscription_id, team_id, person_id, at_ms - at_ms % 86400000 AS day_ms,
             sum(cost_nano) AS cost_nano, count(*) AS entries, max(at_ms) AS at_ms
      FROM usage_entry GROUP BY 1, 2, 3, 4, 5) AS days
GROUP BY 1, 2, 3, 4, 5;
INSERT INTO scope_spent (kind, id, period, spent_nano, entries, last_at_ms)
SELECT kind, id, period, sum(cost_nano), sum(entries), max(at_ms) FROM seed_spent CROSS JOIN LATERAL (VALUES
    ('key', key_id, month), ('subscription', subscription_id, 'total'),
    (CASE WHEN team_id IS NULL THEN 'user' ELSE 'team' END, coalesce(team_id, person_id), month),
    ('organisation', 'default', month)) AS scope (kind, id, period)
GROUP BY 1, 2, 3;
UPDATE budget SET spent_nano = latest.spent_nano, spent_period = latest.period, spent_at_ms = latest.last_at_ms
FROM (SELECT DISTINCT ON (kind, id) * FROM scope_spent ORDER BY kind, id, last_at_ms DESC) AS latest
WHERE latest.kind = scope_kind AND latest.id = scope_id;
UPDATE api_key SET last_used_ms = used.at_ms
FROM (SELECT key_id, max(at_ms) AS at_ms FROM seed_spent GROUP BY key_id) AS used WHERE used.key_id = api_key.id;
"""


def make(connection: Connection[Any], sizes: Sizes) -> None:
    """Post the rows in the caller's transaction, after `bench.portal.organisation`."""
    words = {name: sql.Literal(getattr(sizes, name)) for name in ("days", "rows", "keys")}
    connection.execute("SET LOCAL work_mem = '512MB'")
    connection.execute("ANALYZE")
    connection.execute(sql.SQL(ENTRIES).format(**words))
    connection.execute(SPENT.encode())
