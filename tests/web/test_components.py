"""Every macro rendered once and read back as HTML: no inline style or script, unique ids, labels that lead somewhere."""
# ruff: noqa: E501  # a template of a test reads best on one line

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from flask import Flask, render_template, render_template_string
from wtforms import (
    BooleanField,
    DecimalField,
    FileField,
    Form,
    PasswordField,
    RadioField,
    SelectField,
    SelectMultipleField,
    StringField,
    TextAreaField,
)
from wtforms.fields.choices import SelectChoice
from wtforms.validators import DataRequired

import tests.page

VOID = {"input", "img", "br", "hr", "meta", "link"}


class Reading(HTMLParser):
    """Collects what the rules below ask about, and whether every element was closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def values(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]


def read(html: str) -> Reading:
    page = Reading(html)
    for tag, attrs in page.tags:
        assert "style" not in attrs, f"inline style on <{tag}>"
        assert not [name for name in attrs if name.startswith(("on", "hx-on"))], f"inline script on <{tag}>"
        assert tag != "script" or "src" in attrs
        assert tag != "style"
    twice = [name for name, times in Counter(page.values("id")).items() if times > 1]
    assert not twice, f"ids used twice: {twice}"
    for name in ("for", "aria-labelledby", "aria-describedby", "commandfor", "data-copy-from"):
        for value in page.values(name):
            for one in value.split():
                assert one in page.values("id"), f"{name}={one} leads nowhere"
    return page


class Sample(Form):  # type: ignore[misc]
    name = StringField("Name", [DataRequired()], description="Max 100 characters.")
    note = TextAreaField("Note")
    role = SelectField("Role", choices=[SelectChoice("u", "User"), SelectChoice("a", "Admin")])
    budget = DecimalField("Budget", description="A month")
    password = PasswordField("Password")
    models = SelectMultipleField("Models", choices=[SelectChoice(f"m{n}", f"model {n}") for n in range(12)])
    hard = BooleanField("Refuse", description="Otherwise warn.")
    expiry = RadioField("Expiry", choices=[SelectChoice("30", "30 days"), SelectChoice("90", "90 days")])
    file = FileField("File")


def shown(app: Flask, source: str, **values: object) -> str:
    with app.test_request_context("/keys?q=x&page=2"):
        return render_template_string('{% import "components/ui.html" as ui %}' + source, **values)


MACROS = {
    "icon": "{{ ui.icon('copy') }}{{ ui.icon('copy', 'Copy') }}",
    "button": "{{ ui.button('Save', icon_name='check', type='submit', hx_post='/x') }}{{ ui.button('No', disabled=true, reason='Read only') }}",
    "link_button": "{{ ui.link_button('New', '/new', icon_name='plus', class='x') }}",
    "icon_button": "{{ ui.icon_button('Edit', 'pencil') }}{{ ui.icon_button('Edit', 'pencil', href='/e') }}",
    "copy_button": "{{ ui.copy_button('abc') }}<p id='p'>x</p>{{ ui.copy_button(source='p', text='Copy') }}{{ ui.copyable('id_1') }}",
    "switch": "{{ ui.switch([{'label': 'Cards', 'href': '/m', 'current': true, 'icon': 'layout-grid'}, {'label': 'Table', 'href': '/m?view=table'}], 'View', region='m') }}<div id='m'></div>",
    "row_menu": "{% call ui.row_menu() %}{{ ui.menu_item('Edit', '/e', 'pencil') }}{{ ui.menu_item('Drop', danger=true, type='submit') }}{% endcall %}",
    "breadcrumb": "{{ ui.breadcrumb([{'label': 'Home', 'href': '/'}, {'label': 'Keys'}]) }}",
    "page_header": "{{ ui.page_header('Keys', 'Lead', status=ui.label('active')) }}{% call ui.page_header('Keys') %}x{% endcall %}",
    "card": "{% call ui.card('Budget', actions=ui.button('Edit'), footer='f', id='c') %}x{% endcall %}{% call ui.card() %}y{% endcall %}",
    "description_list": "{{ ui.description_list([{'term': 'URL', 'copyable': 'https://x'}, {'term': 'Owner', 'value': none}], columns=2) }}",
    "code_block": "{{ ui.code_block('a < b', 'python') }}",
    "code_tabs": "{{ ui.code_tabs([{'label': 'curl', 'code': 'curl'}, {'label': 'Python', 'code': 'import x'}]) }}",
    "tabs": "{{ ui.tabs([{'label': 'Overview', 'href': '/', 'current': true}, {'label': 'Members', 'href': '/m', 'count': 0}]) }}",
    "timeline": "{{ ui.timeline([{'title': ui.label('pending'), 'at': moment, 'by': 'ada', 'text': 'Why'}, {'title': 'Renewed', 'at': moment}]) }}",
    "check_cell": "<form data-check-list><table><tbody><tr>{{ ui.check_cell('ids', 'a', 'Choose a') }}{{ ui.check_cell('ids', 'b', 'Choose b', checked=true, disabled=true, reason='Read only') }}</tr></tbody></table></form>",
    "label": "{{ ui.label('pending') }}{{ ui.label('never_seen') }}{{ ui.tag('vision', 'teal') }}",
    "alert": "{{ ui.alert('danger', 'Failed', 'Why', live=true) }}{% call ui.alert('info', 'Note') %}<b>x</b>{% endcall %}",
    "toast_region": "{{ ui.toast_region([('success', 'Saved'), ('error', 'No')]) }}",
    "dialog": "{{ ui.dialog_opener('Open', 'd') }}{{ ui.dialog_opener('Open', 'd', href='/d') }}{% call ui.dialog('d', 'Title') %}x{% endcall %}",
    "confirm": "{{ ui.confirm('c', 'Revoke', '/r', 'Sure?', 'It stops.', 'Revoke', danger=true, typed='prod') }}"
    "{% call ui.confirm('c2', 'Deny', '/d', 'Deny?') %}{{ ui.textarea('reason', 'Reason') }}{% endcall %}",
    "wrong_name": "{{ ui.wrong_name(true, 'not the key’s') }}{{ ui.wrong_name(false) }}",
    "confirm_form": "{{ ui.confirm_form('/r', 'Sure?', back='/', keep='Keep it') }}",
    "skeleton": "{{ ui.skeleton(2) }}",
    "request_id": "{{ ui.request_id('req_1') }}",
    "table": "{% call ui.region('keys') %}{% call ui.toolbar('/keys', 'x', filters=[{'name': 's', 'label': 'Status', 'options': [('a', 'A')], 'value': 'a'}],"
    " chips=[{'label': 'S', 'value': 'A', 'href': '/'}], clear_href='/', keep={'sort': 'name'}, region='keys', total=1) %}x{% endcall %}"
    "{% call ui.data_table(['Plain', {'label': 'Name', 'key': 'name'}, {'label': 'Cost', 'numeric': true}, {'label': 'Actions', 'hidden': true}], 'Keys', region='keys', sort='-name') %}"
    "{% call ui.tr(id='r1') %}{{ ui.td('Plain', none) }}{{ ui.td('Name', 'n') }}{% call ui.td('Cost', numeric=true) %}1{% endcall %}{% call ui.actions_cell() %}x{% endcall %}{% endcall %}"
    "{% endcall %}{{ ui.pagination(2, 20, 1234, region='keys') }}{% endcall %}",
    "more filters": "{{ ui.toolbar('/m', filters=[{'name': 'a', 'label': 'From', 'kind': 'text', 'value': '1', 'inputmode': 'decimal', 'more': true}, {'name': 's', 'label': 'S', 'options': [], 'value': ''}]) }}",
    "exports": "{{ ui.exports() }}",
    "pagination": "{{ ui.pagination(1, 20, 0) }}",
    "cursor_pages": "{{ ui.cursor_pages({'total': 45, 'next': 'n', 'previous': '~p'}, 20, (20, 50), 'keys', ('key', 'keys')) }}"
    "{{ ui.cursor_pages({'total': none, 'next': none, 'previous': none}, 20, (20, 50), 'keys', ('key', 'keys')) }}",
    "empty_state": "{{ ui.empty_state('nothing', action_text='Add', action_href='/new') }}{{ ui.empty_state('no_match', action_href='/') }}{{ ui.empty_state('failed') }}",
    "money": "{{ ui.money(125000) }}{{ ui.money(none) }}{{ ui.count(12345) }}{{ ui.count(none) }}",
    "time": "{{ ui.time(moment) }}{{ ui.time(none) }}{{ ui.time(moment, 'day') }}",
    "tile": "{% call ui.tiles() %}{{ ui.tile('Spend', '$1', change='+1%', good=false, spark=[1, 2, 0]) }}{{ ui.tile('None', '0', spark=[0]) }}{% endcall %}",
    "forecast": "{{ ui.forecast({'forecast_nano': 5, 'will_exceed': true}) }}{{ ui.forecast({'forecast_nano': none, 'period': 'month', 'counted_nano': 1}) }}",
    "budget_bar": "{{ ui.budget_bar(1, 1, 10) }}{{ ui.budget_bar(5, 0, none) }}{{ ui.budget_bar(5, 0, 0) }}{{ ui.remaining({'over_nano': 0, 'remaining_nano': 5}) }}{{ ui.remaining({'over_nano': 5}) }}{{ ui.meter(1, 4, 'Requests') }}",
    "dates": "{{ ui.toolbar('/u', filters=[{'name': 'from', 'label': 'First day', 'kind': 'date', 'value': none}, {'name': 'tz', 'label': 'Zone', 'options': [('UTC', 'UTC')], 'value': 'UTC', 'required': true, 'zones': true}], id='zones') }}",
    "heat_map": "{{ ui.heat_map('Requests by hour', [('Mon', [{'text': '1k', 'grade': 5}] * 24)]) }}",
    "span_bar": "{{ ui.span_bar(25, 75.5, 'from 100 ms, for 300 ms', 'failed') }}",
    "updated": "{{ ui.updated(moment, 'usage') }}",
    "chart": "{{ ui.chart('c', 'bar', 'Cost', ['Day', 'a'], [['1', {'value': '1.5', 'text': '$1.50'}], ['2', 12000], ['3', none]], unit='$') }}",
    "field": "{% call ui.form('/x', form, guard=true) %}{{ ui.error_summary(form) }}{% for one in form %}{{ ui.field(one) }}{% endfor %}{{ ui.form_actions('Save', '/') }}{% endcall %}",
    "input": "{{ ui.input('n', 'Name', 'v', help='h', faults=['bad'], required=true, prefix='USD') }}{{ ui.select('s', 'S', [('a', 'A')], 'a') }}{{ ui.textarea('t', 'T', 'v') }}",
    "form_summary": "{% call ui.form('/x') %}{{ ui.form_summary() }}{% endcall %}",
    "fault": "{{ ui.fault('Give a name.') }}",
    "health": "{% set health = {'state': 'failing', 'since': moment, 'reason': 'It is down.'} %}{{ ui.health_label(health) }}{{ ui.health_words(health) }}{{ ui.health_words(health, false) }}{{ ui.breaker_label(none) }}{{ ui.breaker_label({'breakers_open': 1, 'deployments': 2}) }}",
    "uptime_bars": "{{ ui.uptime_bars([], 'Uptime') }}{{ ui.uptime_point({'start': moment}) }}",
    "check": "{{ ui.check('c', 'C', true, 'help') }}{{ ui.check_list('l', 'L', [{'value': 1, 'label': 'one', 'note': 'n'}]) }}{{ ui.toggle('p', 'Published', true) }}",
}


@pytest.mark.parametrize("name", MACROS)
def test_a_macro_is_clean_html(web_app: Flask, name: str) -> None:
    form = Sample(data={"models": ["m1"]})
    form.validate()
    page = read(shown(web_app, MACROS[name], form=form, moment=datetime(2026, 11, 21, tzinfo=UTC)))
    assert page.tags


def test_every_macro_is_offered_under_one_name_and_rendered_here() -> None:
    from tests.web.conftest import TEMPLATES

    everything = "".join(MACROS.values())
    offered = (TEMPLATES / "components" / "ui.html").read_text()
    inner = {
        "toast_item",
        "sort_head",
        "filter_chips",
        "sparkline",
        "csrf",
        "edit_conflict",  # of tests/web/test_forms.py
        "helper",
        "checkbox",
        "radio_group",
        "checkbox_group",
    }
    for path in (TEMPLATES / "components").glob("*.html"):
        for macro in re.findall(r"{%-? macro ([a-z]\w*)\(", path.read_text()):
            assert f"set {macro} =" in offered, f"{macro} is missing from ui.html"
            assert macro in inner or f"ui.{macro}(" in everything, f"{macro} is not rendered by any test"


def test_a_macro_escapes_what_it_is_given(web_app: Flask) -> None:
    html = shown(
        web_app,
        "{{ ui.button(bad, title=bad) }}{{ ui.label(bad) }}{{ ui.code_block(bad) }}{{ ui.copyable(bad) }}",
        bad='"><script>x</script>',
    )
    assert "<script" not in html


def test_a_field_tells_its_help_and_its_faults(web_app: Flask) -> None:
    form = Sample()
    form.validate()
    field = tests.page.read(shown(web_app, "{{ ui.field(form.name) }}", form=form)).field("Name")
    assert field.is_invalid
    assert (field.help, field.error) == ("Max 100 characters.", "This field is required.")


def test_a_sorted_head_says_so_and_sorts_the_other_way(web_app: Flask) -> None:
    html = "<table><thead><tr>{{ ui.sort_head('Name', 'name', 'name', 'keys') }}</tr></thead></table>"
    table = tests.page.read(shown(web_app, html)).table()
    assert table.sorted_by == ("Name", "ascending")
    link = table.link("Name")
    assert link.href == "/keys?q=x&sort=-name"
    assert link.node.attributes["hx-target"] == "#keys"


def test_columns_leave_by_their_rank_and_place(web_app: Flask) -> None:
    columns = "['A', {'label': 'B', 'leaves': 2}, {'label': 'C', 'key': 'c', 'leaves': 1}]"
    html = shown(web_app, "{% call ui.data_table(" + columns + ", 'T') %}{% endcall %}")
    assert {"leaves-2-1", "leaves-1-2"} <= set(html.split('<table class="')[1].split('"')[0].split())
    assert '<div class="table-room">' in html
    assert "table-room" not in shown(web_app, "{% call ui.data_table(['A'], 'T') %}{% endcall %}")


@pytest.mark.parametrize(
    ("spent", "state", "words"),
    [
        (79, "ok", ""),
        (80, "warning", "Running low"),
        (95, "warning", "Running low"),
        (96, "danger", "Almost used up"),
        (100, "danger", "Used up"),
        (119, "danger", "<$0.01 over"),
    ],
)
def test_a_budget_says_in_words_what_its_colour_says(web_app: Flask, spent: int, state: str, words: str) -> None:
    part = tests.page.read(shown(web_app, "{{ ui.budget_bar(spent, 0, 100) }}", spent=spent))
    looks = [
        look for node in part.node.within for look in node.classes if re.fullmatch(r"budget-(ok|warning|danger)", look)
    ]
    assert looks == [f"budget-{state}"]
    assert [one for one in ("Running low", "Almost used up", "Used up", "over") if one in part] == (
        [words.rpartition("$0.01 ")[2]] if words else []
    )
    assert words in part


ITEMS = [{"label": "Home", "href": "/", "icon": "house", "current": True, "badge": 2}]
MENU = [
    {"label": "User", "groups": [{"label": "", "items": ITEMS}]},
    {"label": "Admin", "groups": [{"label": "Access", "items": ITEMS, "open": True, "badge": 2}]},
]


@pytest.mark.parametrize("layout", ["layouts/page.html", "layouts/bare.html"])
def test_a_layout_stands_without_any_context_and_with_all_of_it(web_app: Flask, layout: str) -> None:
    full = {
        "menu": MENU,
        "title": "Keys",
        "signed_in": {"name": "Ada", "detail": "ada@example.org"},
        "user_menu": [{"label": "Account", "href": "/a", "icon": "user"}],
        "logout_href": "/logout",
        "search_href": "/models",
        "notifications": {"href": "/n", "count": 2},
        "announcement": {"level": "info", "title": "T", "text": "t", "dismiss_href": "/d"},
        "docs_href": "/docs",
        "status_href": "/status",
        "app_version": "1",
        "csrf_token": lambda: "token",
    }
    with web_app.test_request_context():
        read(render_template(layout))
        page = read(render_template(layout, **full))
    assert ("body", {"hx-headers:inherited": '{"X-CSRFToken": "token"}'}) in page.tags
    assert "main" in page.values("id")


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 409, 413, 418, 429, 500, 502, 503])
def test_an_error_page_has_a_plain_sentence_the_request_id_and_a_way_on(web_app: Flask, code: int) -> None:
    with web_app.test_request_context():
        html = render_template("errors/error.html", code=code, request_id="req_1", retry_after=5)
    page = read(html)
    assert "req_1" in page.values("data-copy")
    page = tests.page.read(html)
    assert page.texts[-1] == f"Error {code} · Request req_1"
    name, href = ("Sign in", "/login") if code == 401 else ("Go to the start page", "/")
    assert page.link(name).href == href
