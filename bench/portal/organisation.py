"""Who there is and what there is: people, teams, models, keys, subscriptions, budgets and papers, by bulk inserts.

Everything is made in the server out of numbers: a row's number, hashed with a salt, decides what chance would. So the
same sizes give the same organisation, but for its times, which end now. Temporary tables (`seed_…`) keep which number
has which id, for `bench.portal.use`.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection, sql

from bench.portal.sizes import ADMIN, HEAVY, OWNER, Sizes

FUNCTIONS = """
CREATE TEMP TABLE seed_now AS SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms;
-- Between 0 and 1, decided by a number and a salt.
CREATE FUNCTION pg_temp.chance(n bigint, salt bigint) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT ((hashint8extended(n, salt) >> 11) & ((1::bigint << 52) - 1)) / (1::bigint << 52)::double precision $$;
-- The number, from 1 to `most`, that chance picks; the higher `skew`, the more often small ones.
CREATE FUNCTION pg_temp.pick(n bigint, salt bigint, most bigint, skew double precision) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT least(most, 1 + floor(most * power(pg_temp.chance(n, salt), skew))::bigint) $$;
-- An id that sorts by its time, as `app.runtime.ids.new_id` makes it; one expression, so that a query takes it in.
CREATE FUNCTION pg_temp.made_id(ms bigint, n bigint, salt text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT overlay(overlay(lpad(to_hex(ms), 12, '0') || substr(md5(salt || n::text), 1, 20) PLACING '7' FROM 13)
                  PLACING '8' FROM 17)::uuid::text $$;
CREATE FUNCTION pg_temp.at(ms bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT to_timestamp(ms / 1000.0) $$;
-- A time from `days` ago to now.
CREATE FUNCTION pg_temp.ago(n bigint, salt bigint, days double precision) RETURNS bigint LANGUAGE sql STABLE AS
$$ SELECT (SELECT now_ms FROM seed_now) - 1000 - floor(days * 86400000 * pg_temp.chance(n, salt))::bigint $$;
"""

STEPS = """
CREATE TEMP TABLE seed_person AS
SELECT n, pg_temp.made_id(ms, n, 'person') AS id, ms,
       CASE n WHEN 1 THEN {heavy} WHEN 2 THEN {owner} ELSE
         (ARRAY['ada','ben','cleo','dana','elif','finn','grace','hugo','ines','jan','kira','liam','mona','nils','olga',
                'paul','quin','rosa','sven','tara'])[pg_temp.pick(n, 11, 20, 1)] || '.' ||
         (ARRAY['abel','berg','costa','dahl','ernst','fox','gross','hahn','ito','jung','koch','lang','meyer','neri','ott',
                'peters','ruiz','sato','thoma','weber'])[pg_temp.pick(n, 12, 20, 1)] || n END AS username
FROM (SELECT n, pg_temp.ago(n, 10, {days} + 200) AS ms FROM generate_series(1, {people}) AS n) AS numbers;
CREATE INDEX ON seed_person (n);
INSERT INTO person (id, username, email, password_hash, role, scopes, disabled, must_change_password, rpm, tpm,
                    created_at, last_seen_at, groups, email_notices)
SELECT id, username, username || '@example.org', {password},
       CASE WHEN n % 1000 = 7 THEN 'admin-readonly' ELSE 'user' END,
       CASE WHEN n % 1000 = 7 THEN {scopes_all}::json ELSE '["inference","portal"]'::json END,
       n > 2 AND pg_temp.chance(n, 13) < 0.02, false, CASE WHEN pg_temp.chance(n, 14) < 0.1 THEN 600 END, NULL,
       pg_temp.at(ms), CASE WHEN pg_temp.chance(n, 15) < 0.8 THEN pg_temp.at(pg_temp.ago(n, 16, 30)) END,
       json_build_array('group-' || pg_temp.pick(n, 17, 40, 2)), true
FROM seed_person;

CREATE TEMP TABLE seed_team AS
SELECT n, pg_temp.made_id(ms, n, 'team') AS id, ms FROM
  (SELECT n, pg_temp.ago(n, 20, {days} + 150) AS ms FROM generate_series(1, {teams}) AS n) AS numbers;
INSERT INTO team (id, name, description, rpm, tpm, created_at)
SELECT id, 'Team ' || n, 'What team ' || n || ' does.', CASE WHEN n % 5 = 0 THEN 600 END, NULL, pg_temp.at(ms)
FROM seed_team;
CREATE TEMP TABLE seed_member AS
SELECT team, person, row_number() OVER (PARTITION BY team ORDER BY j) AS j, count(*) OVER (PARTITION BY team) AS members
FROM (SELECT DISTINCT ON (team, person) team, person, j FROM
  (SELECT t.n AS team, j,
          CASE WHEN t.n = 1 AND j = 1 THEN 2 ELSE pg_temp.pick(t.n * 1000 + j, 21, {people}, 1) END AS person
   FROM seed_team t CROSS JOIN LATERAL generate_series(1, CASE WHEN t.n = 1 THEN 200
        ELSE 2 + pg_temp.pick(t.n, 22, 60, 2) END) AS j) AS drawn ORDER BY team, person, j) AS once;
CREATE INDEX ON seed_member (team, j);
INSERT INTO membership (team_id, person_id, role, joined_at)
SELECT t.id, p.id, CASE WHEN m.j <= 2 THEN 'owner' ELSE 'member' END, pg_temp.at(greatest(t.ms, p.ms))
FROM seed_member m JOIN seed_team t ON t.n = m.team JOIN seed_person p ON p.n = m.person;

CREATE TEMP TABLE seed_provider AS
SELECT n, pg_temp.made_id(ms, n, 'provider') AS id FROM
  (SELECT n, (SELECT now_ms FROM seed_now) - 400 * 86400000::bigint + n AS ms
   FROM generate_series(1, {providers}) AS n) AS numbers;
INSERT INTO provider (id, type, name, kind, status, settings, sealed, hints, created_at, updated_at)
SELECT id, 'api', 'Provider ' || n, 'vllm', 'active', json_build_object('base_url', 'http://127.0.0.1:9/v1'), NULL,
       '{{}}'::json, now(), now() FROM seed_provider;
CREATE TEMP TABLE seed_model AS
SELECT n, pg_temp.made_id(ms, n, 'model') AS id, pg_temp.made_id(ms, n, 'price') AS price_id, ms,
  (ARRAY['llama','qwen','mistral','gemma','phi','granite','command','falcon','olmo','nova'])[pg_temp.pick(n, 30, 10, 1)]
    || '-' || n AS name,
  CASE WHEN n % 7 = 3 THEN 'embeddings' WHEN n % 29 = 5 THEN 'audio' ELSE 'chat' END AS api_type,
  (pg_temp.pick(n, 31, 60, 2) * 50000000) AS input_nano, (pg_temp.pick(n, 32, 60, 2) * 200000000) AS output_nano,
  pg_temp.pick(n, 33, 3, 1.5) AS deployments
FROM (SELECT n, pg_temp.ago(n, 34, {days} + 200) AS ms FROM generate_series(1, {models}) AS n) AS numbers;
CREATE INDEX ON seed_model (n);
INSERT INTO model (id, name, display_name, description, capabilities, features, context_window, max_output_tokens,
                   restricted, status, status_at, created_at, updated_at)
SELECT id, name, initcap(replace(name, '-', ' ')), 'A model for ' || api_type || '.',
       json_build_array(CASE api_type WHEN 'audio' THEN 'transcription' ELSE api_type END),
       CASE WHEN api_type = 'chat' THEN '["tools"]'::json ELSE '[]'::json END, 131072, 8192, n % 3 = 0,
       CASE WHEN n % 50 = 49 THEN 'deprecated' ELSE 'active' END, pg_temp.at(ms), pg_temp.at(ms), pg_temp.at(ms)
FROM seed_model;
INSERT INTO price (id, model_id, from_at, input_per_mtok, output_per_mtok, cached_input_per_mtok)
SELECT price_id, id, pg_temp.at(ms), input_nano, output_nano, input_nano / 2 FROM seed_model;
CREATE TEMP TABLE seed_deployment AS
SELECT m.n AS model, j, pg_temp.made_id(m.ms, m.n * 10 + j, 'deployment') AS id, p.id AS provider_id, m.id AS model_id,
       m.name
FROM seed_model m CROSS JOIN LATERAL generate_series(1, m.deployments) AS j
JOIN seed_provider p ON p.n = 1 + (pg_temp.pick(m.n, 35, {providers}, 1.5) + j) % {providers};
INSERT INTO deployment (id, model_id, provider_id, upstream_model, priority, weight, settings)
SELECT id, model_id, provider_id, 'served/' || name, j - 1, 1, '{{}}'::json FROM seed_deployment;

-- Whoever pays, a person or a team, has some models; the first ones are used most.
CREATE TEMP TABLE seed_slot AS
SELECT DISTINCT ON (payer, model) payer, team, person, model, slot FROM (
  SELECT p.n AS payer, NULL::bigint AS team, p.n AS person, slot,
         pg_temp.pick(p.n * 100 + slot, 40, {models}, 2.5) AS model
  FROM seed_person p
  CROSS JOIN LATERAL generate_series(1, CASE WHEN p.n = 1 THEN 60 ELSE 1 + pg_temp.pick(p.n, 41, 8, 2) END) AS slot
  UNION ALL
  SELECT -t.n, t.n, m.person, slot, pg_temp.pick(-t.n * 100 - slot, 42, {models}, 2.5)
  FROM seed_team t JOIN seed_member m ON m.team = t.n AND m.j = 1
  CROSS JOIN LATERAL generate_series(1, CASE WHEN t.n = 1 THEN 60 ELSE 2 + pg_temp.pick(t.n, 43, 20, 2) END) AS slot
) AS drawn ORDER BY payer, model, slot;
CREATE TEMP TABLE seed_subscription AS
SELECT s.payer, s.team, s.person, s.model, row_number() OVER (PARTITION BY s.payer ORDER BY s.slot) AS slot,
       count(*) OVER (PARTITION BY s.payer) AS slots,
       pg_temp.made_id(greatest(p.ms, m.ms), s.payer * 1000 + s.slot, 'subscription') AS id,
       greatest(p.ms, m.ms) AS ms
FROM seed_slot s JOIN seed_person p ON p.n = s.person JOIN seed_model m ON m.n = s.model;
CREATE INDEX ON seed_subscription (payer, slot);
INSERT INTO subscription (id, person_id, team_id, model_id, model_name, status, justification, decided_by, decided_at,
                          decision_reason, expires_at, created_at, updated_at)
SELECT s.id, p.id, t.id, m.id, m.name, 'active', CASE WHEN m.n % 3 = 0 THEN 'For the work of ' || p.username END,
       CASE WHEN m.n % 3 = 0 THEN {admin} END, CASE WHEN m.n % 3 = 0 THEN pg_temp.at(s.ms) END,
       CASE WHEN m.n % 3 = 0 THEN 'Fine.' END,
       CASE WHEN pg_temp.chance(s.payer * 1000 + s.slot, 44) < 0.05
            THEN now() + interval '1 day' * pg_temp.pick(s.payer * 1000 + s.slot, 45, 90, 1) END,
       pg_temp.at(s.ms), pg_temp.at(s.ms)
FROM seed_subscription s JOIN seed_person p ON p.n = s.person JOIN seed_model m ON m.n = s.model
LEFT JOIN seed_team t ON t.n = s.team;
INSERT INTO subscription (id, person_id, team_id, model_id, model_name, status, justification, created_at, updated_at)
SELECT pg_temp.made_id(w.ms, w.n, 'waiting'), p.id, NULL, m.id, m.name, 'pending',
       'To summarise the minutes of our meetings.', pg_temp.at(w.ms), pg_temp.at(w.ms)
FROM (SELECT DISTINCT ON (person, model) n, ms, person, model FROM
  (SELECT n, pg_temp.ago(n, 46, 20) AS ms, pg_temp.pick(n, 47, {people}, 1) AS person,
          3 * pg_temp.pick(n, 48, {models} / 3, 2) AS model FROM generate_series(1, {waiting}) AS n) AS drawn) AS w
JOIN seed_person p ON p.n = w.person JOIN seed_model m ON m.n = w.model
WHERE NOT EXISTS (SELECT 1 FROM seed_subscription s WHERE s.payer = w.person AND s.model = w.model);
INSERT INTO subscription_step (id, subscription_id, at, status, actor, reason)
SELECT pg_temp.made_id((extract(epoch FROM s.created_at) * 1000)::bigint, row_number() OVER (), 'step'), s.id,
       s.created_at, s.status, p.username, s.justification
FROM subscription s JOIN person p ON p.id = s.person_id;

-- Keys by how much they are used: the first five are the heavy person's, of whom a few others are.
CREATE TEMP TABLE seed_key AS
SELECT k.n, pg_temp.made_id(k.ms, k.n, 'key') AS id, pg_temp.made_id(k.ms, k.n, 'secret') AS secret_id, k.ms, k.team,
       p.n AS person, p.id AS person_id, t.id AS team_id, coalesce(-k.team, p.n) AS payer,
       pg_temp.chance(k.n, 54) < 0.6 AS streams
FROM (SELECT n, pg_temp.ago(n, 50, {days}) AS ms,
             CASE WHEN n = 6 THEN 1 WHEN n > 6 AND pg_temp.chance(n, 51) < 0.2
                  THEN pg_temp.pick(n, 52, {teams}, 2) END AS team
      FROM generate_series(1, {keys}) AS n) AS k
LEFT JOIN LATERAL (SELECT DISTINCT members FROM seed_member WHERE team = k.team) AS size ON true
LEFT JOIN seed_member m ON m.team = k.team AND m.j = pg_temp.pick(k.n, 53, size.members, 1)
JOIN seed_person p ON p.n = coalesce(m.person, CASE WHEN k.n <= 5 THEN 1 ELSE pg_temp.pick(k.n, 55, {people}, 1.5) END)
LEFT JOIN seed_team t ON t.n = k.team;
CREATE INDEX ON seed_key (n);
INSERT INTO api_key (id, name, person_id, team_id, models, routing, rpm, tpm, note, expires_at, paused_at, revoked_at,
                     created_at, updated_at)
SELECT k.id, (ARRAY['notebook','batch','service','agent','test','crawler','support','index'])[pg_temp.pick(k.n, 56, 8, 1)]
         || '-' || k.n, k.person_id, k.team_id,
       CASE WHEN pg_temp.chance(k.n, 57) < 0.3 THEN json_build_array(m.name) ELSE '[]'::json END, 'free',
       CASE WHEN pg_temp.chance(k.n, 58) < 0.2 THEN 120 END, NULL,
       CASE WHEN pg_temp.chance(k.n, 59) < 0.1 THEN 'Runs each night on machine ' || k.n % 100 END,
       CASE WHEN pg_temp.chance(k.n, 60) < 0.2
            THEN now() + interval '1 day' * (pg_temp.pick(k.n, 61, 400, 1) - 100) END,
       CASE WHEN k.n > 100 AND pg_temp.chance(k.n, 62) < 0.02 THEN now() - interval '1 day' END,
       CASE WHEN k.n > 100 AND pg_temp.chance(k.n, 63) < 0.1 THEN now() - interval '2 days' END,
       pg_temp.at(k.ms), pg_temp.at(k.ms)
FROM seed_key k JOIN seed_subscription s ON s.payer = k.payer AND s.slot = 1 JOIN seed_model m ON m.n = s.model;
INSERT INTO key_secret (id, key_id, digest, prefix, last4, created_at)
SELECT secret_id, id, md5('a' || n) || md5('b' || n), 'sk-' || substr(md5('c' || n), 1, 5), substr(md5('d' || n), 1, 4),
       pg_temp.at(ms) FROM seed_key;

INSERT INTO budget (id, scope_kind, scope_id, team_id, person_id, limit_nano, period, timezone, thresholds, action,
                    action_percent, updated_at, opening_nano)
SELECT pg_temp.made_id((SELECT now_ms FROM seed_now), row_number() OVER (), 'budget'), kind, id, team_id, person_id, limit_nano,
       'month',
       'UTC', '[50, 80, 100]'::json, 'notify', 100, now(), 0
FROM (SELECT 'organisation' AS kind, 'default' AS id, NULL AS team_id, NULL AS person_id,
             10000000000000::bigint AS limit_nano
      UNION ALL SELECT 'user', id, NULL, id, 500000000000 FROM seed_person
      UNION ALL SELECT 'team', id, id, NULL, 5000000000000 FROM seed_team
      UNION ALL SELECT 'key', id, NULL, NULL, 100000000000 FROM seed_key WHERE pg_temp.chance(n, 64) < 0.2
      UNION ALL SELECT 'member', t.id || ':' || p.id, t.id, p.id, 50000000000 FROM seed_member m
                JOIN seed_team t ON t.n = m.team JOIN seed_person p ON p.n = m.person
                WHERE pg_temp.chance(m.team * 1000 + m.j, 65) < 0.2) AS scopes;

INSERT INTO budget_request (id, scope_kind, scope_id, person_id, amount_nano, lasting, reason, status, decided_by,
                            decided_at, decision_reason, granted_nano, created_at)
SELECT pg_temp.made_id(r.ms, r.n, 'request'), 'user', p.id, p.id, 5000000000, r.n % 2 = 0, 'The inventory of the year.',
       CASE WHEN r.n % 10 = 0 THEN 'pending' WHEN r.n % 3 = 0 THEN 'denied' ELSE 'granted' END,
       CASE WHEN r.n % 10 <> 0 THEN {admin} END, CASE WHEN r.n % 10 <> 0 THEN pg_temp.at(r.ms) END, NULL,
       CASE WHEN r.n % 10 <> 0 AND r.n % 3 <> 0 THEN 5000000000 END, pg_temp.at(r.ms)
FROM (SELECT n, pg_temp.ago(n, 70, 60) AS ms FROM generate_series(1, {budget_requests}) AS n) AS r
JOIN seed_person p ON p.n = pg_temp.pick(r.n, 71, {people}, 1);

INSERT INTO invitation (id, digest, email, role, groups, invited_by, created_at, expires_at, used_at)
SELECT pg_temp.made_id(ms, n, 'invitation'), md5('i' || n) || md5('j' || n), 'guest' || n || '@example.org', 'user',
       '[]'::json, {admin}, pg_temp.at(ms), pg_temp.at(ms) + interval '14 days',
       CASE WHEN n % 3 = 0 THEN pg_temp.at(ms) + interval '1 day' END
FROM (SELECT n, pg_temp.ago(n, 72, 60) AS ms FROM generate_series(1, {invitations}) AS n) AS drawn;

INSERT INTO audit_entry (id, at, actor_id, actor, action, object_kind, object_id, object_name, detail, address)
SELECT pg_temp.made_id(a.ms, a.n, 'audit'), pg_temp.at(a.ms), p.id, p.username,
       (ARRAY['key.create','key.update','key.revoke'])[1 + a.n % 3], 'key', k.id, 'key ' || k.n,
       json_build_object('after', json_build_object('name', 'key ' || k.n)), '127.0.0.1'
FROM (SELECT n, {days} * 86400000::bigint * n / {audit} + (SELECT now_ms FROM seed_now) - {days} * 86400000::bigint - 1000
             AS ms FROM generate_series(1, {audit}) AS n) AS a
JOIN seed_key k ON k.n = pg_temp.pick(a.n, 73, {keys}, 2) JOIN seed_person p ON p.n = k.person;

INSERT INTO notice (id, person_id, kind, title, text, href, at, read_at)
SELECT pg_temp.made_id(a.ms, a.n, 'notice'), p.id, 'key.expires_in_7_days', 'A key ends soon', 'Make another in time.',
       '/keys', pg_temp.at(a.ms), CASE WHEN a.n % 4 <> 0 THEN pg_temp.at(a.ms) END
FROM (SELECT n, pg_temp.ago(n, 74, {days}) AS ms FROM generate_series(1, {notices}) AS n) AS a
JOIN seed_person p ON p.n = CASE WHEN a.n % 50 = 0 THEN 1 ELSE pg_temp.pick(a.n, 75, {people}, 1.5) END;

INSERT INTO delivery (id, channel, target, kind, payload, state, attempts, last_error, at, done_at)
SELECT pg_temp.made_id(a.ms, a.n, 'delivery'), 'email', p.username || '@example.org', 'key.expires_in_7_days',
       json_build_object('subject', 'Portico: A key ends soon', 'text', 'Make another in time.'),
       CASE WHEN a.n % 100 = 0 THEN 'dead' ELSE 'sent' END, 1,
       CASE WHEN a.n % 100 = 0 THEN 'The mail server could not be reached.' END, pg_temp.at(a.ms), pg_temp.at(a.ms)
FROM (SELECT n, pg_temp.ago(n, 76, {days}) AS ms FROM generate_series(1, {deliveries}) AS n) AS a
JOIN seed_person p ON p.n = pg_temp.pick(a.n, 77, {people}, 1.5);

INSERT INTO dead_letter (digest, source, raw, reason, at_ms, state, resolved_at, resolved_by, note)
SELECT md5('l' || n) || md5('m' || n), 'stream ' || n || '-0', '{{"request_id": ' || n || '}}',
       'Object missing required field `attempt`', pg_temp.ago(n, 78, {days}),
       CASE WHEN n % 20 = 0 THEN 'open' ELSE 'dismissed' END, CASE WHEN n % 20 <> 0 THEN now() END,
       CASE WHEN n % 20 <> 0 THEN {admin} END, CASE WHEN n % 20 <> 0 THEN 'Nothing was used.' END
FROM generate_series(1, {dead_letters}) AS n;
"""


def make(connection: Connection[Any], sizes: Sizes, password_hash: str) -> None:
    """Make the organisation in the caller's transaction."""
    words = {name: sql.Literal(getattr(sizes, name)) for name in sizes.__struct_fields__}
    words |= {
        "heavy": sql.Literal(HEAVY),
        "owner": sql.Literal(OWNER),
        "admin": sql.Literal(ADMIN),
        "password": sql.Literal(password_hash),
        "scopes_all": sql.Literal('["inference","portal","admin"]'),
    }
    connection.execute(FUNCTIONS.encode())
    connection.execute(sql.SQL(STEPS).format(**words))
