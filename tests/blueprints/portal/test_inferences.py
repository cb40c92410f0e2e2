"""The history of the playground: what it keeps, and that it is its owner's alone."""

from __future__ import annotations

from flask import Flask

from app.domain import identity, inferences, prompts
from app.extensions import db, transaction
from tests.blueprints.portal.conftest import Browser
from tests.blueprints.portal.test_playground import Visit, events, owner, told  # noqa: F401
from tests.house import People, metered  # noqa: F401


def test_only_what_was_to_be_kept_has_words(owner: Browser, signed_in: Visit, app: Flask) -> None:  # noqa: F811
    owner.post("/playground", choice="/small", text="a secret", act="send")
    owner.post("/playground/answers", choice="/small", text="keep <b>this</b>", keep="y", act="send")
    page = owner.page("/playground/history")
    assert page.table("Your calls").column("Asked") == ["keep <b>this</b>", "not kept"]
    assert [row.id for row in db.session.scalars(inferences.owned_by(identity.named("owner")))] == [
        event.request_id for event in reversed(events(app))
    ]
    assert "a secret" not in owner.get("/playground/history?format=json", buffered=True).text
    assert owner.page("/playground/history?q=this").row_names and owner.page("/playground/history?q=secret").empty
    markdown = owner.get("/playground/history/markdown").text
    assert "## User\n\nkeep <b>this</b>\n\n## Answer\n\nkeep <b>this</b>" in markdown
    assert signed_in("admin").page("/playground/history").empty
    kept = events(app)[-1].request_id
    assert "keep &lt;b&gt;this" in owner.get(f"/playground/history/{kept}").text
    assert signed_in("admin").get(f"/playground/history/{kept}").status_code == 404
    assert owner.post("/playground/history/clearing").status_code == 303
    assert owner.page("/playground/history").empty


def test_a_kept_prompt_is_filled_in_and_told_in_usage(owner: Browser, app: Flask, people: People) -> None:  # noqa: F811
    made = transaction(lambda: prompts.create(by=people.owner, name="Letters", template="Dear {{name}},"))
    page = owner.page(f"/playground?prompt={made.id}")
    assert page.field("name").value == ""
    sent = {"choice": "/small", "prompt_id": made.id, "version": "1", "act": "send"}
    missing = owner.post("/playground", **sent)
    assert missing.status_code == 422
    answer = owner.post("/playground/answers", **sent, **{"var-name": "Ada"}, text="How are you?")
    assert told(answer)[-1]["kind"] == "done"
    (event,) = events(app)
    assert event.tags == (f"prompt:{made.id}", f"prompt:{made.id}:1")
    assert event.prompt_tokens == 5
    db.session.rollback()  # what it has read before is older
    (row,) = db.session.scalars(inferences.owned_by(people.owner))
    assert (row.prompt_id, row.prompt_version) == (made.id, 1)
