"""Deliveries: found by state, channel and words, and tried again when they were given up."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

from app import queue as queue_module
from app.domain import deliveries
from app.domain.deliveries import Delivery
from app.extensions import db, transaction
from app.runtime.ids import new_id
from config import Config
from tests.blueprints.portal.conftest import Browser
from tests.house import People

SignedIn = Callable[[str], Browser]


def make(**values: object) -> str:
    base = {"id": new_id(), "channel": "email", "target": "ada@example.org", "kind": "subscription.approve"}
    made = Delivery(**{**base, "payload": {"subject": "Approved", "text": "x"}, **values})
    transaction(lambda: db.session.add(made))
    return str(made.id)


def test_they_are_listed_filtered_and_exported(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    page = admin.page("/admin/deliveries")
    assert page.alert.heading == "Neither a mail server nor a webhook is set"
    assert "No deliveries yet" in page.empty
    make(state="dead", attempts=4, last_error="The mail server could not be reached.")
    make(channel="webhook", target="https://hooks.example", state="sent", payload={"title": "<b>New</b>"})
    sent, dead = admin.page("/admin/deliveries").rows
    assert (sent.cell("To"), sent.cell("About").texts[0], sent.cell("State")) == (
        "https://hooks.example", "<b>New</b>", "Sent",
    )  # fmt: skip
    assert (sent.cell("Channel"), dead.cell("Channel")) == ("Webhook", "E-mail")
    assert (dead.cell("To"), dead.cell("Tries")) == ("ada@example.org", "4 of 4")
    assert dead.cell("State").texts == ["Given up", "The mail server could not be reached."]
    assert (sent.buttons, dead.buttons) == ([], ["Send again to ada@example.org: subscription.approve"])
    narrow = admin.page("/admin/deliveries?state=dead", fragment=True)
    assert narrow.table().column("To") == ["ada@example.org"]
    assert "No delivery fits these filters." in admin.page("/admin/deliveries?channel=webhook&state=dead").empty
    rows = list(
        csv.DictReader(io.StringIO(admin.get("/admin/deliveries?channel=email&format=csv", buffered=True).text))
    )
    assert [(row["state"], row["attempts"]) for row in rows] == [("dead", "4")]


def test_a_dead_one_is_put_into_the_letterbox_again(people: People, signed_in: SignedIn, config: Config) -> None:
    admin, id = signed_in("admin"), make(state="dead", attempts=4)
    assert admin.post(f"/admin/deliveries/{id}/sending").status_code == 303
    db.session.rollback()
    found = deliveries.delivery(id)
    assert (found.state, found.attempts) == ("waiting", 0)
    [letter] = queue_module.queue(queue_module.connect(config.redis_url)).jobs
    assert (letter.func_name, list(letter.args)) == ("app.jobs.deliveries.send", [id])
    again = admin.post(f"/admin/deliveries/{id}/sending")
    assert admin.page(again.headers["Location"]).toasts[-1] == "This delivery is waiting."
    assert admin.post("/admin/deliveries/nothing/sending").status_code == 404
