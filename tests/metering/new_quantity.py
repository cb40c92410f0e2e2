"""What a Portico does with `smell_tokens`, which it has not: printed as JSON, place by place. `test_new_quantity.py` runs it on a
copy of the application to which it added that quantity."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import msgspec

import app
from app import clock, create_app
from app.domain import catalog
from app.extensions import db, transaction
from app.gateway import pipeline
from app.ledger import posting
from app.providers.openai import OpenAIExchange
from app.setup import set_up
from app.workflows import publication
from config import load
from tests.blueprints.portal.conftest import Browser
from tests.gateway.dialects.calls import CALLER, asked, chat
from tests.house import make_model, make_person, sign_in
from tests.providers.canned import Canned

# The prompt's tokens cost a dollar a million, those of smells fifty.
PRICE = {"input_per_mtok": "1", "output_per_mtok": "2", "smell_per_mtok": "50"}
USED = {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"smell_tokens": 40}}
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "Roses."}, "finish_reason": "stop"}
ANSWER = json.dumps({"choices": [CHOICE], "usage": USED}).encode()

told: dict[str, Any] = {"application": app.__file__}
config = load(os.environ)
set_up(config)
portico = create_app(config, ("portal", "admin", "api", "public"))
with portico.app_context():
    transaction(make_person, "root", "admin")
    owner_id = transaction(make_person, "owner").id
    transaction(make_model, None, "small")
    db.session.remove()
program, admin = sign_in(portico, "root"), Browser(portico, "root")

# A price is formed: on the page and by a program, and published.
told["form"] = next(field.sent_as for field in admin.page("/admin/models/new").fields if field.text == "Smell")
sent = {"name": "sweet", "status": "active", "capabilities": ["chat"]}
prices = {f"price_{name}": amount for name, amount in PRICE.items()}
told["made by the form"] = admin.post("/admin/models", **sent, **prices).status_code
told["price of the form"] = program.get("/api/models/sweet").get_json()["price"]["smell_per_mtok"]
program.put("/api/models/small", json={"price": PRICE})
told["price of a program"] = program.get("/api/models/small").get_json()["price"]["smell_per_mtok"]
with portico.app_context():
    published = publication.model_record(catalog.model("small"))
    db.session.remove()

# An adapter reads it; it is held for, and charged.
call = asked(chat("What is it?"), published, caller=msgspec.structs.replace(CALLER, person_id=owner_id))
told["held"] = pipeline.charge_of(call).base_nano >= 50_000 * call.bound.input
call.exchange = OpenAIExchange(Canned(ANSWER).answer, call.request, None, 60.0)
call.exchange.receive()
call.exchange.body()
call.first_byte_at = time.monotonic()
event = msgspec.structs.replace(call.event(), at_ms=clock.now_ms(), key_id=None, scopes=())
told["event"] = msgspec.json.decode(msgspec.json.encode(event))["smell_tokens"]
told["cost"] = event.cost_nano

# It is in the books, in sums of them, and wherever they are shown.
with portico.app_context():
    posting.post([event, msgspec.structs.replace(event, request_id="second")])
    db.session.remove()
owner = sign_in(portico, "owner")
told["requests"] = [row["smell_tokens"] for row in owner.get("/api/requests").get_json()["data"]]
told["one request"] = owner.get("/api/requests/second").get_json()["smell_tokens"]
told["total"] = sum(row["smell_tokens"] for row in owner.get("/api/requests/stats?groupBy=day").get_json()["data"])
for name, path in {
    "export of requests": "/admin/activity?format=json",
    "export of usage": "/admin/usage?format=json",
    "export of the chargeback": "/admin/chargeback?format=json",
}.items():
    rows = admin.get(path, buffered=True).get_json()["data"]
    told[name] = sum(row["smell_tokens"] for row in rows)
head = admin.get("/admin/activity?format=csv", buffered=True).text.splitlines()[0]
told["header"] = "smell_tokens" in head.split(",")
told["arithmetic"] = [row.name for row in admin.page("/admin/activity/second").rows if row.name == "Smell"]
print(json.dumps(told))
