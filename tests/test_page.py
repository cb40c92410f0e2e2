"""The reader of pages finds what stands in a place, and nothing that stands elsewhere."""
# ruff: noqa: E501  # rows of a table read best on one line

from __future__ import annotations

import pytest

from tests.page import NotThere, Page, read

PAGE = """<!doctype html><html lang="en"><head><title>Keys</title></head><body>
<nav aria-label="Main"><ul><li><a href="/keys" aria-current="page"><span>Keys</span></a></li>
  <li><a href="/approvals"><span>Approvals</span><span class="pf-v6-c-badge">2</span></a></li></ul></nav>
<main id="main">
<section><h1>Keys <span>of ada</span></h1>
<div class="pf-v6-c-alert pf-m-inline pf-m-danger"><p class="pf-v6-c-alert__title"><span>Error: </span>Not saved</p>
  <div><p>Try&nbsp;again.</p></div></div>
<table><caption>Your keys</caption>
<thead><tr><th aria-sort="descending">Name</th><th>Spent</th><th>Left</th><td><span>Actions</span></td></tr></thead>
<tbody>
<tr><td><a href="/keys/1">app</a><br><code>sk-1…</code></td><td><b>$3</b>.00</td><td>–</td><td><a href="/keys/1/end">End</a></td></tr>
<tr><td><a href="/keys/2">old &lt;app&gt;</a></td><td>$4.00</td><td title="exactly">$1.00</td><td><a href="/keys/2/end">End</a></td></tr>
</tbody></table>
<section><div><h2>Budget</h2></div><dl>
  <div><dt>Remaining</dt><dd>$1.00</dd><dd>of <span>$5.00</span></dd></div><div><dt>Period</dt><dd>month</dd></div></dl>
  <svg role="img" aria-label="$4.00 of $5.00 spent"><path d="M1"/></svg>
</section>
<section><h2>Budget of the team</h2><dl><div><dt>Remaining</dt><dd>$9.00</dd></div></dl><a href="/teams/1">Budget</a></section>
<form method="post" action="/keys"><input type="hidden" name="once" value="7">
  <label for="name">Name&nbsp;<span aria-hidden="true">*</span></label>
  <input id="name" name="name" value="a&amp;b" aria-describedby="name-help name-error" aria-invalid="true">
  <p id="name-help">Short.</p><p id="name-error"><span>Error: </span>It is taken.</p>
  <label for="note">Note</label><textarea id="note" name="note">
line</textarea>
  <select name="period" aria-label="Period"><option value="">Period: all</option><option value="month" selected>A month</option></select>
  <fieldset><legend>Models</legend><input type="checkbox" id="m1" name="models" value="small" checked><label for="m1">Small one</label>
    <input type="checkbox" id="m2" name="models" value="large"><label for="m2">Large one</label></fieldset>
  <fieldset disabled><legend>Limits</legend><input name="rpm" id="rpm" value="5"><label for="rpm">Requests</label></fieldset>
  <button type="submit">Save</button><button aria-disabled="true" title="Read only">Delete</button></form>
</section>
<dialog id="d" aria-labelledby="t"><h2 id="t">End the key</h2><p>It stops.</p><button>End it</button></dialog>
<div class="pf-v6-c-empty-state"><h2>No requests</h2><div>Nothing waits.</div></div>
<template><p class="hidden">Never seen</p></template><p hidden>Nor this</p>
</main>
<ul><li><p data-toast-text>Saved.</p></li></ul></body></html>"""


@pytest.fixture(scope="module")
def shown() -> Page:
    return read(PAGE)


def test_a_cell_is_labelled_as_its_column_is_headed() -> None:
    table = "<table><thead><tr><th>Name</th><th>Spent</th></tr></thead><tr><td>app</td>{}</tr></table>"
    read(table.format('<td data-label="Spent">$3</td>'))
    with pytest.raises(AssertionError, match="the column 'Spent' is labelled 'Left'"):
        read(table.format('<td data-label="Left">$3</td>'))


def test_a_row_is_found_by_what_it_is_about_and_a_cell_by_its_head(shown: Page) -> None:
    row = shown.table("Your keys").row("app")
    assert row.cell("Spent") == "$3.00"
    assert row.cell("Name").texts == ["app", "sk-1…"]
    assert shown.row("old <app>").cell("Left") == "$1.00"
    assert shown.row("old <app>").cell("Left").title == "exactly"
    assert shown.row("$4.00").link("End").href == "/keys/2/end"
    assert shown.row_names == ["app", "old <app>"]
    assert shown.table().column("Spent") == ["$3.00", "$4.00"]
    assert shown.table().sorted_by == ("Name", "descending")
    assert row.cells == {"Name": "app sk-1…", "Spent": "$3.00", "Left": "–", "Actions": "End"}


def test_a_section_is_found_by_its_own_heading(shown: Page) -> None:
    assert shown.heading == "Keys of ada"
    assert shown.section("Budget").definition("Remaining") == "$1.00"
    assert shown.section("Budget").definition("Remaining").note == "of $5.00"
    assert shown.section("Budget of the team").facts == {"Remaining": "$9.00"}
    assert shown.section("Budget").images == ["$4.00 of $5.00 spent"]
    assert shown.sections == ["Your keys", "Budget", "Budget of the team", "Models", "Limits"]
    assert shown.headings == ["Keys of ada", "Budget", "Budget of the team", "No requests"]


def test_messages_stand_in_the_page_or_fade(shown: Page) -> None:
    assert (shown.alert.level, shown.alert.heading) == ("danger", "Not saved")
    assert "Try again." in shown.alert
    assert shown.toasts == ["Saved."]
    assert shown.empty.texts == ["No requests", "Nothing waits."]


def test_a_field_is_found_by_its_label(shown: Page) -> None:
    name = shown.field("Name")
    assert (name.value, name.help, name.error, name.is_invalid) == ("a&b", "Short.", "It is taken.", True)
    assert (shown.field("Note").value, shown.field("Note").error) == ("line", None)
    assert (shown.field("Period").value, shown.field("Period").chosen) == ("month", ["A month"])
    assert shown.field("Models").choices == ["Small one", "Large one"]
    assert shown.field("Models").chosen == ["Small one"]
    assert shown.field("Requests").disabled
    assert not shown.field("Large one").checked
    assert "Nothing" not in shown.fields
    assert shown.errors == {"Name": "It is taken."}


def test_a_form_sends_what_a_browser_would(shown: Page) -> None:
    sent = shown.form("/keys").sends
    assert sent.to_dict(flat=False) == {
        "once": ["7"], "name": ["a&b"], "note": ["line"], "period": ["month"], "models": ["small"],
    }  # fmt: skip


def test_buttons_say_why_they_cannot_be_used(shown: Page) -> None:
    assert not shown.button("Save").disabled
    assert (shown.button("Delete").disabled, shown.button("Delete").reason) == (True, "Read only")


def test_only_what_is_seen_is_read(shown: Page) -> None:
    assert "Never seen" not in shown
    assert "Nor this" not in shown
    assert "It stops." not in shown
    assert "End it" not in shown.buttons
    assert not shown.dialog("End the key").button("End it").disabled
    assert "Approvals" not in shown  # which the menu says, not the page


def test_the_menu_is_beside_the_page(shown: Page) -> None:
    assert shown.menu.link("Keys").is_current
    assert shown.menu.link("Approvals").badge == "2"


@pytest.mark.parametrize(
    ("look", "told"),
    [
        (lambda shown: shown.row("none"), r"no row 'none'.*'app', 'old <app>'"),
        (lambda shown: shown.row("app").cell("spent"), r"no column 'spent'.*'Spent'"),
        (lambda shown: shown.table("My keys"), r"no table.*'Your keys'"),
        (lambda shown: shown.section("budget"), "no section"),
        (lambda shown: shown.definition("Remaining"), "2 of term 'Remaining'"),
        (lambda shown: shown.field("Nam"), r"no field 'Nam'.*'Name'"),
        (lambda shown: shown.link("End"), "2 of link 'End'"),
        (lambda shown: shown.button("Sav"), "no button"),
        (lambda shown: shown.section("Budget").alert, "no message"),
        (lambda shown: shown.dialog("Another"), "no dialog"),
        (lambda shown: shown.table().empty, r"no empty list.*'app', 'old <app>'"),
        (lambda shown: shown.form("/other"), "no form"),
    ],
)
def test_what_is_not_there_or_is_there_twice_fails_with_what_there_is(shown: Page, look, told: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(NotThere, match=told):
        look(shown)


@pytest.mark.parametrize("broken", ["<p>a", "<p>a</div>", "</p>"])
def test_what_is_not_closed_is_no_page(broken: str) -> None:
    with pytest.raises(AssertionError, match=r"close|open"):
        read(broken)
