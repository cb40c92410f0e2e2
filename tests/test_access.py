"""Who gets through which route: every route of every cold door, for everybody there is, in one table.

The owner has one of everything (`tests/things.py`), the stranger nothing; the auditor is an admin who only reads. What
is somebody else's is not there (404), what needs a role that one lacks is refused (403), and nobody is asked to sign in:
401 for programs, `led` to the form in a browser. Each visitor finds the same world, whatever the one before them did.

What a team has stands in a second table: `lead` owns the team, `member` is in it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse

from app.domain import identity, sessions, tokens
from app.extensions import db, transaction
from config import Config
from tests.house import (  # noqa: F401
    PASSWORD,
    People,
    app,
    configured,
    home,
    inside,
    migrated,
    quick_hashes,
    valkey_url,
    visitors,
    wire,
)
from tests.things import make_things

pytestmark = pytest.mark.slow

VISITORS = ("nobody", "owner", "stranger", "auditor", "admin")
TEAM_VISITORS = ("nobody", "lead", "member", "stranger", "auditor", "admin")
DOORS = ("portal", "admin", "public", "api")
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}
# They know nobody, and answer everybody the same; SCIM knows one token (tests/blueprints/api/test_scim.py).
OPEN = ("health", "static", "scim")

TABLE = """
# For nobody, owner, stranger, auditor and admin; then what is sent, on a line of its own where it is long.

# The portal
GET    /home                                            led 200 200 200 200
GET    /models                                          led 200 200 200 200
GET    /models/compare                                  led 200 200 200 200
GET    /models/small                                    led 200 200 200 200
POST   /models/small/subscription                       led 303 303 303 303
GET    /playground                                      led 200 200 200 200
POST   /playground                                      led 422 422 422 422 {"choice": "/small", "text": " "}
POST   /playground/answers                              led 422 422 422 422 {"choice": "/small", "text": " "}
POST   /playground/estimates                            led 200 200 200 200 {"choice": "/small", "text": " "}
POST   /playground/code                                 led 200 200 200 200 {"choice": "/small", "text": " "}
GET    /playground/compare                              led 200 200 200 200
POST   /playground/compare                              led 422 422 422 422 {"text": "a"}
GET    /playground/embeddings                           led 200 200 200 200
POST   /playground/embeddings                           led 422 422 422 422 {"choice": "/small", "text": " "}
GET    /playground/history                              led 200 200 200 200
GET    /playground/history/markdown                     led 200 200 200 200
GET    /playground/history/{request}                    led 200 404 404 404
GET    /playground/history/clearing                     led 200 200 200 200
POST   /playground/history/clearing                     led 303 303 303 303
GET    /playground?prompt={prompt}                      led 200 404 404 404
GET    /prompts                                         led 200 200 200 200
POST   /prompts                                         led 303 303 303 303 {"name": "another", "template": "a"}
GET    /prompts/new                                     led 200 200 200 200
GET    /prompts/{prompt}                                led 200 404 404 404
POST   /prompts/{prompt}                                led 303 404 404 404 {"name": "another", "template": "a"}
GET    /prompts/{prompt}/deletion                       led 200 404 404 404
POST   /prompts/{prompt}/deletion                       led 303 404 404 404
GET    /subscriptions                                   led 200 200 200 200
GET    /subscriptions/{subscription}                    led 200 404 200 200
GET    /subscriptions/{subscription}/cancellation       led 200 404 200 200
POST   /subscriptions/{subscription}/cancellation       led 303 404 403 303
POST   /subscriptions/{subscription}/renewal            led 303 404 403 403 {"reason": "Still needed."}
POST   /subscriptions/{denied}/review                   led 303 404 403 403 {"justification": "Minutes."}
GET    /keys                                            led 200 200 200 200
POST   /keys                                            led 303 303 303 303
       {"name": "another", "reach": "all", "lifetime": "never", "period": "month", "timezone": "UTC", "routing": "free"}
GET    /keys/new                                        led 200 200 200 200
GET    /keys/selection?ids={key}                        led 200 200 200 200
POST   /keys/selection                                  led 200 200 200 200 {"ids": "{key}", "act": "pause"}
GET    /keys/{key}                                      led 200 404 200 200
GET    /keys/{key}/settings                             led 200 404 403 200
POST   /keys/{key}/settings                             led 303 404 403 303
       {"name": "renamed", "reach": "all", "lifetime": "keep", "period": "month", "timezone": "UTC", "routing": "free"}
GET    /keys/{key}/secret                               led 200 404 403 200
GET    /keys/{key}/rotation                             led 200 404 403 200
POST   /keys/{key}/rotation                             led 303 404 403 303 {"overlap": "3600"}
GET    /keys/{key}/secrets/{secret}/end                 led 200 404 403 200
POST   /keys/{key}/secrets/{secret}/end                 led 303 404 403 303
GET    /keys/{key}/pause                                led 200 404 403 200
POST   /keys/{key}/pause                                led 303 404 403 303
GET    /keys/{paused}/resumption                        led 200 404 403 200
POST   /keys/{paused}/resumption                        led 303 404 403 303
GET    /keys/{key}/revocation                           led 200 404 403 200
POST   /keys/{key}/revocation                           led 303 404 403 303 {"confirm": "app"}
GET    /connect?key={key}                               led 200 404 200 200
GET    /connect/first-call?key={key}                    led 303 404 303 303
GET    /budgets                                         led 200 200 200 200
GET    /budgets/user/owner                              led 200 404 200 200
POST   /budgets/user/owner/requests                     led 303 404 403 403
       {"amount": "2", "lasting": "once", "reason": "More calls."}
GET    /budget-requests/{budget_request}                led 200 404 200 200
POST   /budget-requests/{budget_request}                led 403 404 403 303 {"decision": "grant", "amount": "2"}
POST   /budget-requests/{budget_request}/withdrawal     led 303 404 403 403
GET    /usage                                           led 200 200 200 200
GET    /activity                                        led 200 200 200 200
GET    /activity/{request}                              led 200 404 200 200
GET    /requests/{request}                              led 301 301 301 301
GET    /notices                                         led 200 200 200 200
POST   /notices/{notice}/reading                        led 303 404 404 404
POST   /notices/selection                               led 303 303 303 303 {"ids": "{notice}"}
POST   /notices/email                                   led 303 303 303 303 {"email": "y"}
POST   /notices/reading                                 led 303 303 303 303
POST   /views                                           led 303 303 303 303 {"list": "/activity", "name": "Failed"}
POST   /views/{view}/deletion                           led 303 404 404 404
GET    /account                                         led 200 200 200 200
GET    /account/export                                  led 200 200 200 200
POST   /account/preferences                             led 303 303 303 303 {"timezone": "UTC", "theme": "dark"}
POST   /account/sessions/{session}/ending               led 303 404 404 404
POST   /account/sessions/ending                         led 303 303 303 303
POST   /account/credentials                             led 303 303 303 303
       {"provider": "{personal_provider}", "name": "another", "token": "sk-another"}
POST   /account/credentials/{credential}/default        led 303 404 404 404
GET    /account/credentials/{credential}/deletion       led 200 404 404 404
POST   /account/credentials/{credential}/deletion       led 303 404 404 404
POST   /account/tokens                                  led 303 303 303 303
       {"name": "a program", "scopes": "portal", "days": "30"}
GET    /account/tokens/{token}                          led 200 404 404 404
GET    /account/tokens/{token}/revocation               led 200 404 404 404
POST   /account/tokens/{token}/revocation               led 303 404 404 404
GET    /search?q=app                                    led 200 200 200 200
GET    /search/suggestions?q=app                        led 200 200 200 200
GET    /reference                                       led 200 200 200 200
GET    /reference/objects                               led 200 200 200 200
GET    /teams                                           led 200 200 200 200
POST   /teams                                           led 303 303 303 303 {"name": "Another"}
GET    /teams/new                                       led 200 200 200 200
POST   /teams/invitations/{team_invitation}/answer      led 303 404 404 403 {"answer": "accept"}

# The admins' pages
GET    /admin/configs                                   led 403 403 200 200
POST   /admin/configs                                   led 403 403 403 303 {"name": "Another"}
GET    /admin/configs/new                               led 403 403 200 200
GET    /admin/configs/export                            led 403 403 200 200
GET    /admin/configs/import                            led 403 403 200 200
POST   /admin/configs/import                            led 403 403 403 422 {"document": "{}"}
GET    /admin/configs/{saved_config}                    led 403 403 200 200
POST   /admin/configs/{saved_config}                    led 403 403 403 303 {"name": "Renamed"}
GET    /admin/configs/{saved_config}/export             led 403 403 200 200
GET    /admin/configs/{saved_config}/activation         led 403 403 200 200
POST   /admin/configs/{saved_config}/activation         led 403 403 403 303
GET    /admin/configs/{saved_config}/deletion           led 403 403 200 200
POST   /admin/configs/{saved_config}/deletion           led 403 403 403 303
GET    /admin/encryption                                led 403 403 200 200
POST   /admin/encryption/rotation                       led 403 403 403 303
GET    /admin/logs                                      led 403 403 200 200
GET    /admin/announcement                              led 403 403 200 200
POST   /admin/announcement                              led 403 403 403 303 {"level": "info", "text": "Updates."}
POST   /admin/announcement/removal                      led 403 403 403 303
GET    /admin/settings                                  led 403 403 200 200
POST   /admin/settings                                  led 403 403 403 303
       {"portal_name": "Models", "keys_default_lifetime_days": "9", "log_level": "info", "gateway_budget_stop_status": "429"}
POST   /admin/settings/mail-test                        led 403 403 403 303
GET    /admin/audit                                     led 403 403 200 200
GET    /admin/audit/verification                        led 403 403 200 200
GET    /admin/audit/digest                              led 403 403 200 200
GET    /admin/audit/{audit_entry}                       led 403 403 200 200
GET    /admin/litellm                                   led 403 403 200 200
POST   /admin/litellm                                   led 403 403 403 303
       {"url": "http://litellm.example", "master_key": "sk-of-litellm", "interval_minutes": "0", "timeout_s": "10"}
POST   /admin/litellm/test                              led 403 403 403 303
POST   /admin/litellm/plans                             led 403 403 403 303
GET    /admin/litellm/plans/none                        led 403 403 404 404
POST   /admin/litellm/plans/none/run                    led 403 403 403 303
POST   /admin/litellm/runs/none/resumption              led 403 403 403 404
POST   /admin/litellm/conflicts/none/portico            led 403 403 403 303
GET    /admin/single-sign-on                            led 403 403 200 200
POST   /admin/single-sign-on                            led 403 403 403 422 {"claims": "{}"}
POST   /admin/people/owner/identities                   led 403 403 403 303
       {"issuer": "https://id.example", "subject": "s"}
POST   /admin/people/owner/identities/none/unlinking    led 403 403 403 404
GET    /admin/jobs                                      led 403 403 200 200
POST   /admin/jobs/{job}/retry                          led 403 403 403 303
POST   /admin/jobs/{job}/removal                        led 403 403 403 303
GET    /admin/activity                                  led 403 403 200 200
GET    /admin/activity/{request}                        led 403 403 200 200
GET    /admin/approvals                                 led 403 403 200 200
GET    /admin/approvals/decisions?ids={pending}         led 403 403 200 200
POST   /admin/approvals/decisions                       led 403 403 403 200
       {"decision": "approve", "ids": "{pending}"}
GET    /admin/budget-requests                           led 403 403 200 200
GET    /admin/budgets                                   led 403 403 200 200
GET    /admin/budgets/user/owner                        led 403 403 200 200
POST   /admin/budgets/user/owner                        led 403 403 403 303
       {"limit": "5", "period": "month", "timezone": "UTC", "thresholds": "50", "action": "refuse"}
GET    /admin/credits                                   led 403 403 200 200
GET    /admin/credits/new?scope=user/owner              led 403 403 200 200
POST   /admin/credits                                   led 403 403 403 303
       {"scope": "user/owner", "amount": "2", "reason": "An outage."}
GET    /admin/subscriptions/{pending}/decision          led 403 403 200 200
POST   /admin/subscriptions/{pending}/decision          led 403 403 403 303 {"decision": "approve"}
GET    /admin/dead-letters                              led 403 403 200 200
GET    /admin/dead-letters/{dead_letter}/dismissal      led 403 403 200 200
POST   /admin/dead-letters/{dead_letter}/dismissal      led 403 403 403 303 {"reason": "Noise."}
POST   /admin/dead-letters/{dead_letter}/posting        led 403 403 403 303
GET    /admin/chargeback                                led 403 403 200 200
GET    /admin/unpriced                                  led 403 403 200 200
GET    /admin/teams                                     led 403 403 200 200
GET    /admin/deliveries                                led 403 403 200 200
POST   /admin/deliveries/{delivery}/sending             led 403 403 403 303
POST   /admin/drift                                     led 403 403 403 303
GET    /admin/invitations                               led 403 403 200 200
POST   /admin/invitations                               led 403 403 403 303 {"role": "user", "days": "7"}
GET    /admin/invitations/new                           led 403 403 200 200
GET    /admin/invitations/{invitation}/link             led 403 403 200 200
POST   /admin/invitations/{invitation}/withdrawal       led 403 403 403 303
GET    /admin/keys                                      led 403 403 200 200
GET    /admin/models                                    led 403 403 200 200
POST   /admin/models                                    led 403 403 403 303
       {"name": "another", "display_name": "Another", "capabilities": "chat", "status": "active"}
GET    /admin/models/{model_id}                         led 403 403 200 200
POST   /admin/models/{model_id}                         led 403 403 403 303
       {"display_name": "Small", "capabilities": "chat", "status": "active"}
GET    /admin/models/{model_id}/deletion                led 403 403 200 200
POST   /admin/models/{model_id}/deletion                led 403 403 403 303 {"confirm": "small"}
POST   /admin/models/{model_id}/test                    led 403 403 403 422
POST   /admin/models/{model_id}/price-preview           led 403 403 403 200
GET    /admin/models/new                                led 403 403 200 200
GET    /admin/models/new/deployment                     led 403 403 200 200
GET    /admin/models/new/tier                           led 403 403 200 200
GET    /admin/people-selection?names=owner              led 403 403 200 200
POST   /admin/people-selection                          led 403 403 403 200 {"names": "owner", "act": "activate"}
GET    /admin/people                                    led 403 403 200 200
GET    /admin/people/owner                              led 403 403 200 200
POST   /admin/people/owner                              led 403 403 403 303 {"role": "user"}
POST   /admin/people/owner/budget                       led 403 403 403 303
       {"limit": "5", "period": "month", "timezone": "UTC"}
GET    /admin/people/owner/deactivation                 led 403 403 200 200
POST   /admin/people/owner/deactivation                 led 403 403 403 303
GET    /admin/people/owner/deletion                     led 403 403 200 200
POST   /admin/people/owner/deletion                     led 403 403 403 303 {"confirm": "owner"}
GET    /admin/people/owner/password                     led 403 403 200 200
POST   /admin/people/owner/password                     led 403 403 403 303
GET    /admin/people/owner/temporary-password           led 403 403 200 200
POST   /admin/people/owner/reactivation                 led 403 403 403 303
POST   /admin/people/owner/sessions/{session}/ending    led 403 403 403 303
POST   /admin/people/owner/tokens/revocation            led 403 403 403 303
GET    /admin/providers                                 led 403 403 200 200
POST   /admin/providers                                 led 403 403 403 303
       {"kind": "echo", "name": "Another", "status": "active"}
GET    /admin/providers/{provider}                      led 403 403 200 200
POST   /admin/providers/{provider}                      led 403 403 403 303 {"name": "Echo", "status": "active"}
GET    /admin/providers/{provider}/deletion             led 403 403 200 200
POST   /admin/providers/{provider}/deletion             led 403 403 403 409
POST   /admin/providers/{provider}/test                 led 403 403 403 200
GET    /admin/providers/{provider}/models               led 403 403 200 200
POST   /admin/providers/{provider}/models               led 403 403 403 422
POST   /admin/providers/{provider}/models/list          led 403 403 403 303
GET    /admin/providers/{provider}/server               led 403 403 404 404
GET    /admin/providers/{provider}/tensors              led 403 403 404 404
GET    /admin/providers/{provider}/status               led 403 403 200 200
POST   /admin/providers/{provider}/status               led 403 403 403 303 {"status": "disabled"}
POST   /admin/providers/{provider}/deployments          led 403 403 403 303
       {"{first}-priority": "1", "{first}-weight": "2", "{second}-priority": "1", "{second}-weight": "2",
        "{third}-priority": "1", "{third}-weight": "2"}
GET    /admin/providers/new                             led 403 403 200 200
GET    /admin/rules                                     led 403 403 200 200
POST   /admin/rules                                     led 403 403 403 303
       {"name": "All", "role": "", "budget_period": "month"}
GET    /admin/rules/new                                 led 403 403 200 200
GET    /admin/rules/{rule}                              led 403 403 200 200
POST   /admin/rules/{rule}                              led 403 403 403 303
       {"name": "All", "role": "", "budget_period": "month"}
POST   /admin/rules/{rule}/activity                     led 403 403 403 303
POST   /admin/rules/{rule}/position                     led 403 403 403 303 {"direction": "up"}
GET    /admin/rules/{rule}/deletion                     led 403 403 200 200
POST   /admin/rules/{rule}/deletion                     led 403 403 403 303
GET    /admin/status                                    led 403 403 200 200
GET    /admin/usage                                     led 403 403 200 200

# The public pages
GET    /                                                led 303 303 303 303
GET    /status                                          404 404 404 404 404
GET    /sign-in                                         200 303 303 303 303
POST   /sign-in                                         303 303 303 303 303
       {"username": "owner", "password": "{password}"}
POST   /sign-out                                        led led led led led
GET    /password                                        led 200 200 200 200
POST   /password                                        led 303 303 303 303
       {"current_password": "{password}", "new_password": "quite another password", "again": "quite another password"}
GET    /invitation/{invitation_token}                   200 200 200 200 200
POST   /invitation/{invitation_token}                   303 303 303 303 303
       {"username": "newcomer", "password": "{password}", "again": "{password}"}
POST   /announcements/{announcement}/dismissal          303 303 303 303 303
# Without an identity provider there are no such pages; with one, see tests/blueprints/public/test_oidc.py.
GET    /oidc/login                                      404 404 404 404 404
GET    /oidc/callback?state=x                           404 404 404 404 404
GET    /oidc/link                                       404 404 404 404 404
POST   /oidc/link                                       404 404 404 404 404
POST   /oidc/account                                    404 404 404 404 404
POST   /oidc/backchannel-logout                         404 404 404 404 404
GET    /oidc/frontchannel-logout                        404 404 404 404 404

# The management API
POST   /token                                           200 200 200 200 200
       {"username": "owner", "password": "{password}"}
POST   /refresh-token                                   200 200 200 200 200 {"refresh_token": "{refresh_token}"}
GET    /token-info                                      401 200 200 200 200
POST   /change-password                                 401 204 204 204 204
       {"current_password": "{password}", "new_password": "quite another password"}
POST   /api/auth/login                                  200 200 200 200 200
       {"username": "owner", "password": "{password}"}
POST   /api/auth/logout                                 401 204 204 204 204
GET    /api/auth/me                                     401 200 200 200 200
GET    /users/me                                        401 200 200 200 200
GET    /api/openapi.json                                401 200 200 200 200
GET    /admin/users                                     401 403 403 200 200
POST   /admin/users                                     401 403 403 403 201
       {"username": "newcomer", "password": "{password}"}
GET    /admin/users/owner                               401 403 403 200 200
PUT    /admin/users/owner                               401 403 403 403 200 {"email": "owner@example.org"}
GET    /admin/users/owner/identities                    401 403 403 200 200
POST   /admin/users/owner/identities                    401 403 403 403 201
       {"issuer": "https://id.example", "subject": "s"}
DELETE /admin/users/owner/identities/none               401 403 403 403 404
POST   /api/oidc/preview                                401 403 403 403 409 {"claims": {"sub": "s"}}
DELETE /admin/users/owner                               401 403 403 403 204
POST   /admin/token/owner                               401 403 403 403 201
GET    /admin/tokens                                    401 403 403 200 200
DELETE /admin/token/owner/revoke                        401 403 403 403 204
GET    /api/settings                                    401 403 403 200 200
PATCH  /api/settings                                    401 403 403 403 200 {"portal.banner": "Internal"}
# Without a LiteLLM there is nothing to keep in step with; tests/blueprints/api/test_sync.py has one.
GET    /api/sync/connection                             401 403 403 404 404
PUT    /api/sync/connection                             401 403 403 403 200
       {"url": "http://litellm.example", "master_key": "sk-of-litellm"}
DELETE /api/sync/connection                             401 403 403 403 204
POST   /api/sync/connection/test                        401 403 403 403 409
GET    /api/sync/policies                               401 403 403 200 200
PUT    /api/sync/policies                               401 403 403 403 200 {"keys": {"create": "pull"}}
GET    /api/sync/plans                                  401 403 403 200 200
POST   /api/sync/plans                                  401 403 403 403 409
GET    /api/sync/plans/none                             401 403 403 404 404
GET    /api/sync/plans/none/steps                       401 403 403 404 404
POST   /api/sync/plans/none/apply                       401 403 403 403 404
GET    /api/sync/runs                                   401 403 403 200 200
GET    /api/sync/runs/none                              401 403 403 404 404
POST   /api/sync/runs/none/resume                       401 403 403 403 404
GET    /api/sync/conflicts                              401 403 403 200 200
POST   /api/sync/conflicts/none/decision                401 403 403 403 404 {"winner": "litellm"}
GET    /api/sync/status                                 401 403 403 200 200
GET    /api/audit                                       401 403 403 200 200
GET    /api/audit/verification                          401 403 403 200 200
GET    /api/admin/active-key                            401 403 403 200 200
GET    /api/admin/encryption-keys                       401 403 403 200 200
GET    /api/admin/rotate-encryption-key                 401 403 403 404 404
POST   /api/admin/rotate-encryption-key                 401 403 403 403 202
GET    /api/logs                                        401 403 403 200 200
GET    /api/configs                                     401 403 403 200 200
POST   /api/configs                                     401 403 403 403 201 {"name": "Another"}
GET    /api/configs/export                              401 403 403 200 200
POST   /api/configs/import                              401 403 403 403 200 {"config": {"portico": 1}}
GET    /api/configs/{saved_config}                      401 403 403 200 200
PUT    /api/configs/{saved_config}                      401 403 403 403 200 {"name": "Renamed"}
DELETE /api/configs/{saved_config}                      401 403 403 403 204
GET    /api/configs/{saved_config}/export               401 403 403 200 200
GET    /api/configs/{saved_config}/diff                 401 403 403 200 200
POST   /api/configs/{saved_config}/activate             401 403 403 403 200
GET    /api/chargeback                                  401 403 403 200 200
GET    /api/chargeback/file                             401 403 403 200 200
GET    /api/budgets                                     401 200 200 200 200
GET    /api/budgets/key/{key}                           401 200 404 200 200
PUT    /api/budgets/key/{key}                           401 200 404 403 200 {"limit": "5"}
DELETE /api/budgets/key/{key}                           401 204 404 403 204
GET    /api/budgets/user/owner                          401 200 404 200 200
PUT    /api/budgets/user/owner                          401 403 404 403 200 {"limit": "5"}
GET    /api/budgets/organisation/default                401 404 404 200 200
PUT    /api/budgets/organisation/default                401 403 403 403 200 {"limit": "5"}
POST   /api/budgets/user/owner/credits                  401 403 403 403 201 {"amount": "2", "reason": "An outage."}
GET    /api/budget-requests                             401 200 200 200 200
POST   /api/budget-requests                             401 201 404 403 403
       {"scope": "user", "id": "owner", "amount": "2", "reason": "More calls."}
GET    /api/budget-requests/{budget_request}            401 200 404 200 200
DELETE /api/budget-requests/{budget_request}            401 204 404 403 403
POST   /api/budget-requests/{budget_request}/decision   401 403 404 403 200 {"decision": "grant"}
GET    /api/endpoints                                   401 403 403 200 200
GET    /api/endpoints/{endpoint}                        401 403 403 200 200
PUT    /api/endpoints/{endpoint}                        401 403 403 403 200 {"active": true}
POST   /api/endpoints/{endpoint}/test                   401 403 403 403 200
       {"request": {"model": "small", "input": "words"}}
GET    /api/keys                                        401 200 200 200 200
POST   /api/keys                                        401 201 201 201 201 {"name": "another"}
GET    /api/keys/{key}                                  401 200 404 200 200
GET    /api/connect?key_id={key}                        401 200 404 200 200
GET    /api/connect/first-call?key_id={key}             401 200 404 200 200
PATCH  /api/keys/{key}                                  401 200 404 403 200 {"name": "renamed"}
DELETE /api/keys/{key}                                  401 204 404 403 204
POST   /api/keys/{key}/rotation                         401 201 404 403 201 {"overlap_s": 60}
GET    /api/models                                      401 200 200 200 200
POST   /api/models                                      401 403 403 403 201
       {"name": "another", "capabilities": ["chat"]}
GET    /api/models/small                                401 200 200 200 200
PUT    /api/models/small                                401 403 403 403 200 {"description": "Small."}
DELETE /api/models/small                                401 403 403 403 204
GET    /api/providers                                   401 403 403 200 200
POST   /api/providers                                   401 403 403 403 201 {"name": "Another", "provider": "echo"}
GET    /api/providers/{provider}/models                 401 403 403 200 200
POST   /api/inference/run                               401 404 404 404 404 {"model": "nowhere", "prompt": "Hello"}
GET    /api/providers/{provider}                        401 403 403 200 200
PUT    /api/providers/{provider}                        401 403 403 403 200 {"name": "Echo 2"}
DELETE /api/providers/{provider}                        401 403 403 403 409
POST   /api/providers/{provider}/test                   401 403 403 403 200 {}
GET    /api/requests                                    401 200 200 200 200
GET    /api/completion_requests                         401 200 200 200 200
GET    /api/metrics                                     401 403 403 200 200
GET    /api/requests/{request}                          401 200 404 200 200
GET    /api/requests/stats                              401 200 200 200 200
GET    /api/inference/history                           401 200 200 200 200
DELETE /api/inference/history                           401 204 204 204 204
GET    /api/tokens                                      401 200 200 200 200
POST   /api/tokens                                      401 201 201 201 201
       {"provider": "{personal_provider}", "name": "another", "token": "sk-another"}
GET    /api/tokens/{credential}                         401 200 404 404 404
PUT    /api/tokens/{credential}                         401 200 404 404 404 {"name": "renamed"}
PUT    /api/tokens/{credential}/default                 401 200 404 404 404
DELETE /api/tokens/{credential}                         401 204 404 404 404
GET    /api/prompts                                     401 200 200 200 200
POST   /api/prompts                                     401 201 201 201 201 {"name": "another", "template": "a"}
GET    /api/prompts/{prompt}                            401 200 404 404 404
PUT    /api/prompts/{prompt}                            401 200 404 404 404 {"name": "another", "template": "a"}
PATCH  /api/prompts/{prompt}                            401 200 404 404 404 {"name": "another"}
DELETE /api/prompts/{prompt}                            401 204 404 404 404
GET    /api/prompts/{prompt}/versions                   401 200 404 404 404
GET    /api/search?q=app                                401 200 200 200 200
GET    /api/status                                      401 200 200 200 200
GET    /api/status/health                               401 200 200 200 200
GET    /api/unpriced-usage                              401 403 403 200 200
GET    /api/usage                                       401 200 200 200 200
GET    /api/subscriptions                               401 200 200 200 200
POST   /api/subscriptions                               401 200 201 201 201 {"model": "small"}
GET    /api/subscriptions/{subscription}                401 200 404 200 200
DELETE /api/subscriptions/{subscription}                401 204 404 403 204
POST   /api/subscriptions/{subscription}/renewal        401 409 404 403 403 {"reason": "Still needed."}
POST   /api/subscriptions/{pending}/decision            401 403 403 403 200 {"decision": "approve"}
POST   /api/subscriptions/decisions                     401 403 403 403 200
       {"decision": "approve", "ids": ["{pending}"]}
GET    /usage/me/day                                    401 200 200 200 200
GET    /usage/admin/user/owner/day                      401 403 403 200 200
GET    /usage/admin/all/day                             401 403 403 200 200
GET    /usage/admin/recent                              401 403 403 200 200
GET    /usage/admin/summary                             401 403 403 200 200
"""

TEAM_TABLE = """
# For nobody, lead, member, stranger, auditor and admin; then what is sent.

# The portal
GET    /keys/{team_key}                                 led 200 200 404 200 200
GET    /keys/{lead_key}                                 led 200 404 404 200 200
POST   /keys/{team_key}/pause                           led 303 303 404 403 303
POST   /keys/{team_key}/revocation                      led 303 303 404 403 303 {"confirm": "ours"}
GET    /subscriptions/{team_subscription}               led 200 200 404 200 200
POST   /subscriptions/{team_subscription}/cancellation  led 303 403 404 403 303
GET    /keys/new?team={team}                            led 200 200 404 404 404
POST   /models/small/subscription                       led 303 303 404 404 404 {"team": "{team}"}
GET    /teams/{team}                                    led 200 200 404 200 200
GET    /teams/{team}?tab=members                        led 200 200 404 200 200
GET    /teams/{team}?tab=models                         led 200 200 404 200 200
GET    /teams/{team}?tab=keys                           led 200 200 404 200 200
GET    /teams/{team}?tab=usage                          led 200 200 404 200 200
GET    /teams/{team}?tab=settings                       led 200 200 404 200 200
POST   /teams/{team}/settings                           led 303 403 404 403 303 {"name": "Renamed"}
POST   /teams/{team}/limits                             led 403 403 404 403 303
       {"rpm": "5", "period": "month", "timezone": "UTC"}
POST   /teams/{team}/subscriptions                      led 303 303 404 403 403 {"model": "small"}
POST   /teams/{team}/invitations                        led 303 403 404 403 303
       {"whom": "stranger", "role": "member"}
POST   /teams/{team}/invitations/{team_invitation}/withdrawal  led 303 403 404 403 303
GET    /teams/{team}/members/member                     led 200 403 404 403 200
POST   /teams/{team}/members/member                     led 303 403 404 403 303
       {"role": "owner", "period": "month", "timezone": "UTC"}
GET    /teams/{team}/members/member/removal             led 200 403 404 403 200
POST   /teams/{team}/members/member/removal             led 303 403 404 403 303 {"confirm": "member"}
GET    /teams/{team}/leaving                            led 200 200 404 403 403
POST   /teams/{team}/leaving                            led 303 303 404 403 403
GET    /budgets/team/{team}                             led 200 200 404 200 200
GET    /budgets/member/{team}:member                    led 200 200 404 200 200
GET    /budgets/key/{lead_key}                          led 200 404 404 200 200
POST   /budgets/member/{team}:member/requests           led 403 303 404 403 403
       {"amount": "2", "lasting": "once", "reason": "More calls."}
GET    /budget-requests/{cap_request}                   led 200 200 404 200 200
POST   /budget-requests/{cap_request}                   led 303 403 404 403 303 {"decision": "grant"}
POST   /budget-requests/{cap_request}/withdrawal        led 403 303 404 403 403
GET    /teams/{team}/deletion                           led 200 403 404 403 200
POST   /teams/{team}/deletion                           led 303 403 404 403 303 {"confirm": "Research"}

# The management API
GET    /api/teams                                       401 200 200 200 200 200
POST   /api/teams                                       401 201 201 201 201 201 {"name": "Another"}
GET    /api/teams/{team}                                401 200 200 404 200 200
PATCH  /api/teams/{team}                                401 200 403 404 403 200 {"name": "Renamed"}
PATCH  /api/teams/{team}?limits                         401 403 403 404 403 200 {"rpm": 5}
DELETE /api/teams/{team}                                401 204 403 404 403 204
GET    /api/teams/{team}/members/member                 401 200 200 404 200 200
PUT    /api/teams/{team}/members/member                 401 200 403 404 403 200 {"role": "owner"}
PUT    /api/teams/{team}/members/stranger               401 200 403 404 403 200 {"role": "member"}
DELETE /api/teams/{team}/members/member                 401 204 204 404 403 204
DELETE /api/teams/{team}/members/lead                   401 409 403 404 403 409
POST   /api/budget-requests                             401 201 201 404 403 403
       {"scope": "team", "id": "{team}", "amount": "2", "reason": "More calls."}
POST   /api/budget-requests?cap                         401 403 409 404 403 403
       {"scope": "member", "id": "{team}:member", "amount": "2", "reason": "More calls."}
GET    /api/budget-requests/{cap_request}               401 200 200 404 200 200
POST   /api/budget-requests/{cap_request}/decision      401 200 403 404 403 200 {"decision": "grant"}
DELETE /api/budget-requests/{cap_request}               401 403 204 404 403 403
GET    /api/budgets/team/{team}                         401 200 200 404 200 200
PUT    /api/budgets/team/{team}                         401 403 403 404 403 200 {"limit": "5"}
DELETE /api/budgets/team/{team}                         401 403 403 404 403 204
GET    /api/budgets/member/{team}:member                401 200 200 404 200 200
PUT    /api/budgets/member/{team}:member                401 200 403 404 403 200 {"limit": "5"}
DELETE /api/budgets/member/{team}:member                401 204 403 404 403 204
GET    /api/budgets/subscription/{team_subscription}    401 200 200 404 200 200
PUT    /api/budgets/subscription/{team_subscription}    401 403 403 404 403 200 {"limit": "5"}
GET    /api/budgets/key/{team_key}                      401 200 200 404 200 200
PUT    /api/budgets/key/{team_key}                      401 200 200 404 403 200 {"limit": "5"}
PUT    /api/budgets/key/{lead_key}                      401 200 404 404 403 200 {"limit": "5"}
POST   /api/keys                                        401 201 201 404 422 422 {"name": "new", "team_id": "{team}"}
GET    /api/keys/{team_key}                             401 200 200 404 200 200
GET    /api/keys/{lead_key}                             401 200 404 404 200 200
PATCH  /api/keys/{team_key}                             401 200 200 404 403 200 {"name": "renamed"}
PATCH  /api/keys/{lead_key}                             401 200 404 404 403 200 {"name": "renamed"}
DELETE /api/keys/{team_key}                             401 204 204 404 403 204
POST   /api/keys/{team_key}/rotation                    401 201 201 404 403 201 {"overlap_s": 60}
POST   /api/subscriptions                               401 200 200 404 422 422 {"model": "small", "team_id": "{team}"}
GET    /api/subscriptions/{team_subscription}           401 200 200 404 200 200
DELETE /api/subscriptions/{team_subscription}           401 204 403 404 403 204
"""


class Row(NamedTuple):
    """One route as one line of the table, with what each visitor is answered."""

    method: str
    path: str
    expected: tuple[str, ...]
    body: dict[str, Any]
    visitors: tuple[str, ...]


def rows() -> Iterator[Row]:
    for table, columns in ((TABLE, VISITORS), (TEAM_TABLE, TEAM_VISITORS)):
        for line in re.sub(r"\n {7,}", " ", table.strip()).splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            method, path, *expected = line.split(None, len(columns) + 2)
            body = json.loads(expected.pop()) if len(expected) > len(columns) else {}
            yield Row(method, path, tuple(expected), body, columns)


class World:
    """The application with its things, which is the same for each who comes."""

    def __init__(self, app: Flask, people: People, folder: Path) -> None:
        app.config["WTF_CSRF_ENABLED"] = False  # forms without their tokens are another test's matter
        self.app = app
        self.things = make_things(app, people)
        with app.app_context():
            whom = {*VISITORS, *TEAM_VISITORS} - {"nobody"}
            self.tokens = {who: transaction(tokens.grant, identity.named(who)).access_token for who in sorted(whom)}
        self.present, self.kept = folder / "portico.db", folder / "kept.db"
        self._close()
        shutil.copy(self.present, self.kept)
        self.restore()

    def _close(self) -> None:
        with self.app.app_context():
            db.session.remove()
            db.engine.dispose()

    def restore(self) -> None:
        self._close()
        for leftover in ("-wal", "-shm"):
            Path(f"{self.present}{leftover}").unlink(missing_ok=True)
        shutil.copy(self.kept, self.present)
        with self.app.app_context():  # sessions live in Redis, and some rows end them
            sessions.begin(self.things["person"], address="127.0.0.1", agent="a browser")
            self.things.ids["session"] = sessions.owned_by(self.things["person"])[0].reference

    def named(self, value: Any) -> Any:
        """The value with the ids that its placeholders name."""
        if isinstance(value, dict):
            return {self.named(key): self.named(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.named(inner) for inner in value]
        if not isinstance(value, str):
            return value
        known = {**self.things.ids, "password": PASSWORD}
        return re.sub(r"{(\w+)}", lambda found: known[found[1]], value)

    def endpoint(self, row: Row) -> str:
        """The route that a row is about."""
        path = self.named(row.path).partition("?")[0]
        try:
            found: str = self.app.url_map.bind("localhost").match(path, row.method)[0]
        except HTTPException:
            pytest.fail(f"no route answers {row.method} {row.path}; take its row out of TABLE")
        return found

    def ask(self, row: Row, who: str, **extra: Any) -> TestResponse:
        """What `who` is answered, by a browser at a page and by a program at the API."""
        program = self.endpoint(row).startswith("api.")
        client = self.app.test_client(use_cookies=not program)
        headers = {}
        if who != "nobody" and program:
            headers["Authorization"] = f"Bearer {self.tokens[who]}"
        elif who != "nobody":
            with self.app.app_context():
                begun = sessions.begin(identity.named(who).id, address="127.0.0.1", agent="a browser")
                db.session.remove()
            with client.session_transaction() as kept:
                kept.permanent = True
                kept[sessions.COOKIE_FIELD] = begun
        body = {**self.named(row.body), **extra}
        given = {"json": body} if program and row.method != "GET" else {"data": body} if row.method != "GET" else {}
        return client.open(self.named(row.path), method=row.method, headers=headers, **given)


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """A file of its own, which is put back after each row."""
    return f"sqlite:///{tmp_path / 'portico.db'}"


@pytest.fixture
def config(tmp_path: Path, valkey_url: str, database_url: str) -> Config:
    return configured(tmp_path, valkey_url, database_url, "portal,admin,api,public")


@pytest.fixture
def world(app: Flask, visitors: People, tmp_path: Path) -> World:
    return World(app, visitors, tmp_path)


def told(answer: TestResponse) -> str:
    """The answer as the table writes it."""
    if answer.status_code == 303 and answer.headers["Location"].startswith("/sign-in"):
        return "led"
    return str(answer.status_code)


def test_every_route_has_a_row(world: World) -> None:
    served = {
        (method, rule.endpoint): rule.rule
        for rule in world.app.url_map.iter_rules()
        if not rule.endpoint.startswith(OPEN)
        for method in (rule.methods or set()) & METHODS
    }
    described = [(row.method, world.endpoint(row)) for row in rows()]
    missing = [f"{method} {served[method, name]} ({name})" for method, name in sorted(set(served) - set(described))]
    assert missing == [], "add a row to TABLE in tests/test_access.py that says who gets through, for each of these"


def test_the_table_is_sound() -> None:
    table = list(rows())
    for row in table:
        assert len(row.expected) == len(row.visitors), row
    assert len({(row.method, row.path, row.visitors) for row in table}) == len(table)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("door", DOORS)
def test_everybody_is_answered_as_the_table_says(world: World, door: str) -> None:
    different = []
    for row in rows():
        if world.endpoint(row).partition(".")[0] != door:
            continue
        for who, expected in zip(row.visitors, row.expected, strict=True):
            answered = world.ask(row, who)
            if told(answered) != expected:
                different.append(f"{row.method} {row.path} by {who}: {told(answered)} instead of {expected}")
            if row.method != "GET":
                world.restore()
    assert different == []
