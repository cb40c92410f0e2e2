"""Reads an HTML page as a person does: by its headings, rows and columns, labels, links and buttons.

`page.row("app").cell("Spent") == "$3.00"` fails when the amount stands in another row or column; so does
`page.field("Name").error == "Say how it is called."` when another field is at fault. A place that is not there, or is there
twice, fails with what is there instead. Closed dialogs, templates and hidden elements are not seen; `page.dialog(title)` opens
a dialog. What a page must not hold anywhere, such as a secret, is looked for in the text of the answer, not here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from html import unescape
from typing import Protocol, TypeVar

from werkzeug.datastructures import MultiDict

VOID = frozenset(["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"])
INLINE = frozenset([
    "a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "del", "em", "i", "ins", "kbd", "label", "mark", "q", "s", "samp",
    "small", "span", "strong", "sub", "sup", "time", "u",
])  # fmt: skip
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
CONTROLS = ("input", "select", "textarea")
NAMED_BY = {  # what has a name of its own beside an `aria-label`, and what gives it
    "table": ("caption",), "figure": ("figcaption",), "fieldset": ("legend",), "details": ("summary",),
    **dict.fromkeys(("section", "article", "aside", "dialog"), HEADINGS),
}  # fmt: skip
LABELLED = ("nav", "header", "footer", "form", "div", "ol", "ul", "dl")
NAMED = (*NAMED_BY, *LABELLED)
UNSEEN = ("template", "script", "style", "head")
VERBATIM = ("script", "style")
# Our own pages are well formed: where one is not, this fails, and a browser's mending is not needed. It reads them several
# times as fast as `html.parser`, and tests read thousands.
TAG = re.compile(
    r"""<!--.*?-->|<!doctype\b[^>]*>|</(?P<closed>[a-z][\w-]*)\s*>
    |<(?P<opened>[a-z][\w-]*)(?P<attributes>(?:[^>"']++|"[^"]*+"|'[^']*+')*+)>""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
ATTRIBUTE = re.compile(r"""([^\s=>"'/]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>"']+)))?""")


class NotThere(AssertionError):
    """What a test names is not on the page, or is not the only one of its name."""


class Answer(Protocol):
    @property
    def text(self) -> str: ...


def read(answer: Answer | str) -> Page:
    """The page, or the part of one, that an answer holds."""
    return Page(_tree(answer if isinstance(answer, str) else answer.text))


class Node:
    """An element of the page and what is in it."""

    def __init__(self, tag: str, attributes: dict[str, str], parent: Node | None) -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children: list[Node | str] = []
        is_closed = tag == "dialog" and not attributes.keys() & {"open", "data-open"}
        self.is_seen = not is_closed and tag not in UNSEEN and "hidden" not in attributes
        self.is_read = self.is_seen and attributes.get("aria-hidden") != "true"  # shown, and read aloud too

    @property
    def classes(self) -> list[str]:
        return self.attributes.get("class", "").split()

    # A page does not change once it is read, so that what is looked for again and again is found once.

    @cached_property
    def within(self) -> list[Node]:
        """What one sees in this element, in the order of the page."""
        found: list[Node] = []
        for child in self.children:
            if isinstance(child, Node) and child.is_read:
                found.append(child)
                found += child.within
        return found

    def all_within(self) -> Iterator[Node]:
        """What is in this element, seen or not."""
        for child in self.children:
            if isinstance(child, Node):
                yield child
                yield from child.all_within()

    @cached_property
    def labels(self) -> list[Node]:
        return [node for node in self.within if node.tag == "label"]

    @cached_property
    def by_id(self) -> dict[str, Node]:
        return {node.attributes["id"]: node for node in reversed(self.within) if "id" in node.attributes}

    def around(self) -> Iterator[Node]:
        above = self.parent
        while above:
            yield above
            above = above.parent

    @cached_property
    def runs(self) -> list[str]:
        """The texts in this element, each as far as a line, a cell or a paragraph goes."""
        pieces: list[str] = []
        self._gather(pieces)
        return [folded for run in "".join(pieces).split("\0") if (folded := " ".join(run.split()))]

    def _gather(self, pieces: list[str]) -> None:
        edge = "" if self.tag in INLINE and not {"pf-v6-c-badge", "pf-v6-c-label"} & set(self.classes) else "\0"
        pieces.append("\0" if self.tag == "br" else edge)
        if self.tag != "svg":
            for child in self.children:
                if isinstance(child, str):
                    pieces.append(child)
                elif child.is_read:
                    child._gather(pieces)
        pieces.append(edge)

    def text(self) -> str:
        return " ".join(self.runs)

    def name(self) -> str:
        """What it is called: its label, its caption or heading, or else its text."""
        if label := self.attributes.get("aria-label"):
            return " ".join(label.split())
        if ids := self.attributes.get("aria-labelledby", "").split():
            return " ".join(node.text() for node in self.root().all_within() if node.attributes.get("id") in ids)
        if self.tag in NAMED:
            given_by = NAMED_BY.get(self.tag, ())
            giver = next((node for node in self.within if node.tag in given_by), None)
            return giver.text() if giver and giver.tag != "h1" else ""  # which is the page's
        return self.text() or self.attributes.get("title", "")

    def root(self) -> Node:
        return next((node for node in self.around() if node.parent is None), self)


def _tree(html: str) -> Node:
    root = within = Node("", {}, None)
    at = 0
    while tag := TAG.search(html, at):
        _add_text(within, html[at : tag.start()])
        at = tag.end()
        if closed := tag["closed"]:
            within = _closed(within, closed.lower())
        elif opened := tag["opened"]:
            node = Node(opened.lower(), _attributes(tag["attributes"]), within)
            within.children.append(node)
            if node.tag in VERBATIM:
                at = html.index(f"</{opened}>", at)
            if node.tag not in VOID and not tag["attributes"].endswith("/"):
                within = node
    _add_text(within, html[at:])
    assert within is root, f"<{within.tag}> is left open"
    return root


def _attributes(text: str) -> dict[str, str]:
    return {name.lower(): unescape(one or other or bare) for name, one, other, bare in ATTRIBUTE.findall(text)}


def _add_text(within: Node, text: str) -> None:
    if text:
        assert "<" not in text, f"a < that begins no tag: {text[:80]!r}"
        within.children.append(unescape(text))


def _closed(node: Node, tag: str) -> Node:
    assert node.tag == tag and node.parent, f"</{tag}> does not close <{node.tag}>"
    if tag == "table":
        _check_labels(node)
    return node.parent


class Part:
    """A part of a page. It equals its text, and `words in part` looks for words in it."""

    def __init__(self, node: Node) -> None:
        self.node = node

    @cached_property
    def text(self) -> str:
        return self.node.text()

    @property
    def texts(self) -> list[str]:
        """Each line, paragraph and cell by itself."""
        return self.node.runs

    @property
    def name(self) -> str:
        return self.node.name()

    @property
    def title(self) -> str | None:
        """What is told when one points at it, or at something in it."""
        return next((found for node in (self.node, *self._within()) if (found := node.attributes.get("title"))), None)

    def __eq__(self, other: object) -> bool:
        return self.text == (other.text if isinstance(other, Part) else other)

    def __hash__(self) -> int:
        return hash(self.text)

    def __contains__(self, words: str) -> bool:
        return words in self.text

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return repr(self.text)

    def _within(self) -> list[Node]:
        return self.node.within

    def _all(self, *tags: str) -> list[Node]:
        return [node for node in self._within() if node.tag in tags]

    # Headings and what stands under them

    @property
    def headings(self) -> list[Part]:
        return [Part(node) for node in self._all(*HEADINGS)]

    @property
    def sections(self) -> list[str]:
        """What its sections are called; those in a section too."""
        return [name for node in self._all(*NAMED) if (name := node.name())]

    def section(self, name: str) -> Part:
        """What has this heading, caption, legend or label: a card, a form, a menu, a chart, a list of steps."""
        named = [node for node in self._all(*NAMED) if node.name() == name]
        outer = [node for node in named if not set(node.around()) & set(named)]
        return _only(
            f"section {name!r}",
            [Part(node) for node in outer],
            lambda: self.sections,
        )

    @property
    def items(self) -> list[Part]:
        """The entries of its lists, such as the steps of a history."""
        return [Part(node) for node in self._all("li")]

    # Messages

    @property
    def alerts(self) -> list[Alert]:
        """The messages in the page, not those that fade."""
        return [
            Alert(node) for node in self._within() if "pf-v6-c-alert" in node.classes and "pf-m-inline" in node.classes
        ]

    @property
    def alert(self) -> Alert:
        """Its only message."""
        return _only("message", self.alerts, lambda: self.alerts)

    @property
    def empty(self) -> Part:
        """What stands where a list or a chart has nothing to show."""
        found = [Part(node) for node in self._within() if "pf-v6-c-empty-state" in node.classes]
        return _only("empty list", found, lambda: self.row_names or self.headings)

    # Tables

    @property
    def tables(self) -> list[Table]:
        return [Table(node) for node in self._all("table")]

    def table(self, caption: str | None = None) -> Table:
        """The table with this caption, or the only one."""
        found = [table for table in self.tables if caption in (None, table.name)]
        return _only(
            "table" if caption is None else f"table {caption!r}", found, lambda: [table.name for table in self.tables]
        )

    @property
    def rows(self) -> list[Row]:
        return [row for table in self.tables for row in table.rows]

    @property
    def row_names(self) -> list[str]:
        """What the rows are about, in their order."""
        return [row.name for row in self.rows]

    def row(self, name: str) -> Row:
        """The row that is about this; if none is, the one in which a cell says it."""
        rows = self.rows
        found = [row for row in rows if row.name == name] or [row for row in rows if row.reads(name)]
        return _only(f"row {name!r}", found, lambda: self.row_names)

    # Facts

    @property
    def facts(self) -> dict[str, str]:
        """What stands beside each term."""
        return {term.text: Definition(term.node).text for term in (Part(node) for node in self._all("dt"))}

    def definition(self, term: str) -> Definition:
        """What stands beside this term: a line of facts, or a tile with its figure."""
        terms = [Part(node) for node in self._all("dt")]
        return _only(f"term {term!r}", [Definition(part.node) for part in terms if part.text == term], lambda: terms)

    @property
    def codes(self) -> list[str]:
        """Its examples of code and what stands beside a button that copies it."""
        return ["".join(_strings(node)).strip("\n") for node in self._all("code", "kbd")]

    def code(self, language: str) -> str:
        """The example of code that its button calls so."""
        blocks = [node for node in self._within() if "pf-v6-c-code-block" in node.classes]
        named = [node for node in blocks if f"Copy {language} code" in [button.name for button in Part(node).buttons]]
        only = _only(
            f"code {language!r}",
            [Part(node) for node in named],
            lambda: [b.name for node in blocks for b in Part(node).buttons],
        )
        return only.codes[0]

    @property
    def images(self) -> list[str]:
        """What its drawings, bars and charts say to those who do not see them."""
        return [
            name
            for node in self._all("svg", "img")
            if (name := node.attributes.get("aria-label") or node.attributes.get("alt"))
        ]

    # Ways on

    @property
    def links(self) -> list[Link]:
        return [Link(node) for node in self._all("a") if "href" in node.attributes]

    def link(self, name: str) -> Link:
        """The link that says this; several may, if they lead to one place."""
        found = [link for link in self.links if link.text == name] or [link for link in self.links if link.reads(name)]
        places = list({link.href: link for link in reversed(found)}.values())
        return _only(f"link {name!r}", places, lambda: self.links)

    @property
    def hrefs(self) -> list[str]:
        return [link.href for link in self.links]

    @property
    def ways(self) -> list[str]:
        """Where its links and its forms lead to."""
        return self.hrefs + [form.action for form in self.forms]

    @property
    def buttons(self) -> list[Button]:
        sends = ("submit", "button", "image")
        return [
            Button(node)
            for node in self._all("button", "input")
            if node.tag == "button" or node.attributes.get("type") in sends
        ]

    def button(self, name: str) -> Button:
        return _only(f"button {name!r}", [one for one in self.buttons if one.text == name], lambda: self.buttons)

    # Forms

    @property
    def forms(self) -> list[FormPart]:
        return [FormPart(node) for node in self._all("form")]

    def form(self, action: str) -> FormPart:
        """The form that is sent there."""
        return _only(
            f"form {action!r}",
            [one for one in self.forms if one.action == action],
            lambda: [one.action for one in self.forms],
        )

    @property
    def fields(self) -> list[Field]:
        """What can be filled in or chosen: its controls, and its groups of them."""
        unnamed = ("hidden", "submit", "button", "image")
        return [
            field
            for node in self._all(*CONTROLS, "fieldset")
            if node.attributes.get("type") not in unnamed and (field := Field(node)).text
        ]

    @property
    def errors(self) -> dict[str, str]:
        """What is wrong with which field."""
        return {field.text: error for field in self.fields if (error := field.error)}

    def field(self, label: str) -> Field:
        return _only(f"field {label!r}", [one for one in self.fields if one.text == label], lambda: self.fields)

    def reads(self, words: str) -> bool:
        """Whether just these words stand in a line of it, in an element of it, or are its label."""
        return words in self.texts or any(
            words in (node.text(), node.attributes.get("aria-label")) for node in (self.node, *self._within())
        )


class Page(Part):
    """A whole page, of which its main part is looked at, or a part that was sent alone."""

    def __init__(self, root: Node) -> None:
        self.whole = Part(root)
        main = next((node for node in root.within if node.tag == "main"), None)
        self.is_whole = any(node.tag == "html" for node in root.within)
        super().__init__(main or root)

    @property
    def heading(self) -> str:
        """What it is about, without how that stands."""
        return _only("first heading", [Part(node) for node in self._all("h1")], lambda: self.headings).texts[0]

    @property
    def status(self) -> str | None:
        """How that stands of which it is: the label beside its heading."""
        return next((node.text() for node in self._within() if "page-header-status" in node.classes), None)

    @property
    def menu(self) -> Part:
        """The menu beside every page."""
        return self.whole.section("Main")

    @property
    def toasts(self) -> list[Part]:
        """The messages that fade: what has just been done."""
        return [Part(node) for node in self.whole._within() if "data-toast-text" in node.attributes]

    @property
    def toast(self) -> Part:
        """The only one of these messages."""
        return _only("message that fades", self.toasts, lambda: self.toasts)

    @property
    def total(self) -> str:
        """How many results a list says to have."""
        found = [Part(node) for node in self._within() if "list-total" in node.classes]
        return _only("count of results", found, lambda: self.texts).text

    def dialog(self, title: str) -> Part:
        """A dialog, as after it was opened."""
        dialogs = [Part(node) for node in self.whole.node.all_within() if node.tag == "dialog"]
        return _only(
            f"dialog {title!r}", [one for one in dialogs if one.name == title], lambda: [one.name for one in dialogs]
        )


class Alert(Part):
    """A message: `level` is success, info, warning or danger; `heading` what it says first."""

    @property
    def level(self) -> str:
        return next(
            name.removeprefix("pf-m-")
            for name in self.node.classes
            if name.startswith("pf-m-") and name != "pf-m-inline"
        )

    @property
    def heading(self) -> str:
        title = next(node for node in self._within() if "pf-v6-c-alert__title" in node.classes)
        return re.sub(r"^(Error|Warning|Success|Note): ", "", title.text())


class Table(Part):
    @cached_property
    def heads(self) -> list[str]:
        """What the columns are called; a drawn head is not read twice."""
        first = next((node for node in self._within() if node.tag == "tr"), None)
        return [head for cell in _cells(first) for head in [cell.text()] * _span(cell)] if first else []

    @property
    def rows(self) -> list[Row]:
        heads = [node for node in self._all("tr") if any(above.tag == "thead" for above in node.around())]
        own = [
            node
            for node in self._all("tr")
            if next(above for above in node.around() if above.tag == "table") is self.node
        ]
        return [Row(node, self) for node in own if node not in heads]

    def column(self, head: str) -> list[Part]:
        """The cells under a head, in their order."""
        return [row.cell(head) for row in self.rows]

    @property
    def sorted_by(self) -> tuple[str, str] | None:
        """The head by which it is sorted, and whether ascending or descending."""
        for cell in self._all("th"):
            if (way := cell.attributes.get("aria-sort", "none")) != "none":
                return cell.text(), way
        return None


class Row(Part):
    def __init__(self, node: Node, table: Table) -> None:
        super().__init__(node)
        self._table = table

    @property
    def name(self) -> str:
        """The first line of its first cell that says something."""
        return next(iter(self.texts), "")

    @property
    def cells(self) -> dict[str, str]:
        return {head: self.cell(head).text for head in self._table.heads if head}

    def cell(self, head: str) -> Part:
        """The cell under this head."""
        cells = [Part(cell) for cell in _cells(self.node) for _ in range(_span(cell))]
        found = [cell for name, cell in zip(self._table.heads, cells, strict=False) if name == head]
        return _only(f"column {head!r}", found, lambda: self._table.heads)


class Definition(Part):
    """What stands beside a term; `note` is what is added in small letters."""

    def __init__(self, term: Node) -> None:
        assert term.parent
        beside = [node for node in term.parent.children if isinstance(node, Node)]
        after = beside[beside.index(term) + 1 :]
        meant = []
        for node in after:
            if node.tag != "dd":
                break
            meant.append(node)
        super().__init__(meant[0])
        self.note = " ".join(text for node in meant[1:] if (text := node.text()))


class Control(Part):
    """Something that can be used; it is called by its label or by what it says."""

    @cached_property
    def text(self) -> str:
        return self.node.name()

    @property
    def disabled(self) -> bool:
        off = "disabled" in self.node.attributes or self.node.attributes.get("aria-disabled") == "true"
        return off or any(above.tag == "fieldset" and "disabled" in above.attributes for above in self.node.around())


class Link(Control):
    @property
    def href(self) -> str:
        return self.node.attributes["href"]

    @property
    def is_current(self) -> bool:
        return "aria-current" in self.node.attributes

    @property
    def badge(self) -> str | None:
        """The number beside it."""
        return next((node.text() for node in self._within() if "pf-v6-c-badge" in node.classes), None)


class Button(Control):
    @property
    def reason(self) -> str | None:
        """Why it cannot be used."""
        return self.node.attributes.get("title") if self.disabled else None

    @property
    def value(self) -> str:
        return self.node.attributes.get("value", "")


class FormPart(Part):
    @property
    def action(self) -> str:
        return self.node.attributes.get("action", "")

    @property
    def method(self) -> str:
        return self.node.attributes.get("method", "get")

    @property
    def sends(self) -> MultiDict[str, str]:
        """What a browser would send of it as it is, hidden values among them."""
        sent: MultiDict[str, str] = MultiDict()
        for node in self._all(*CONTROLS):
            control = Field(node)
            name, kind = node.attributes.get("name"), node.attributes.get("type", "text")
            if not name or control.disabled or kind in ("submit", "button", "image", "reset"):
                continue
            if kind in ("checkbox", "radio") and not control.checked:
                continue
            for value in control.values:
                sent.add(name, value)
        return sent


class Field(Control):
    """A control with its label, or a group of them with its legend."""

    @cached_property
    def text(self) -> str:
        if self.node.tag == "fieldset" or self.node.attributes.get("aria-label"):
            return self.node.name()
        id = self.node.attributes.get("id")
        for label in self.node.root().labels:
            if label in self.node.around() or (id and label.attributes.get("for") == id):
                return label.text()
        return ""

    @property
    def sent_as(self) -> str:
        return self.node.attributes.get("name", "")

    @property
    def values(self) -> list[str]:
        if self.node.tag == "select":
            options = self._all("option")
            chosen = [node for node in options if "selected" in node.attributes]
            if not chosen and "multiple" not in self.node.attributes:
                chosen = options[:1]
            return [node.attributes.get("value", node.text()) for node in chosen]
        if self.node.tag == "textarea":
            return [re.sub(r"\A\r?\n", "", "".join(_strings(self.node)))]
        return [
            self.node.attributes.get("value", "on" if self.node.attributes.get("type") in ("checkbox", "radio") else "")
        ]

    @property
    def value(self) -> str:
        """What is entered or chosen, as it is sent."""
        return next(iter(self.values), "")

    @property
    def choices(self) -> list[str]:
        """What can be chosen, as one reads it."""
        return [node.text() for node in self._all("option")] or [one.text for one in self.fields]

    @property
    def chosen(self) -> list[str]:
        """What is chosen, as one reads it."""
        options = [node for node in self._all("option") if node.attributes.get("value", node.text()) in self.values]
        return [node.text() for node in options] or [one.text for one in self.fields if one.checked]

    @property
    def checked(self) -> bool:
        return "checked" in self.node.attributes

    @property
    def placeholder(self) -> str | None:
        return self.node.attributes.get("placeholder")

    @property
    def is_invalid(self) -> bool:
        return self.node.attributes.get("aria-invalid") == "true"

    @property
    def help(self) -> str | None:
        """What is told of it below."""
        return self._told("help")

    @property
    def error(self) -> str | None:
        """What is wrong with it, as it is told to who cannot see where it stands, too."""
        told = self._told("error")
        return told and told.removeprefix("Error: ")

    def _told(self, what: str) -> str | None:
        ids = [id for id in self.node.attributes.get("aria-describedby", "").split() if id.endswith(f"-{what}")]
        by_id = self.node.root().by_id
        return next((by_id[id].text() for id in ids if id in by_id), None)


Found = TypeVar("Found", bound=Part)


def _only(what: str, found: list[Found], there: Callable[[], Iterable[object]]) -> Found:
    if len(found) == 1:
        return found[0]
    many = f"{len(found)} of {what}" if found else f"no {what}"
    raise NotThere(f"There is {many}. There are: {list(there())}")


def _cells(row: Node) -> list[Node]:
    return [node for node in row.children if isinstance(node, Node) and node.tag in ("td", "th")]


def _span(cell: Node) -> int:
    return int(cell.attributes.get("colspan", "1"))


def _check_labels(table: Node) -> None:
    """On a narrow screen a cell shows its label in place of its column's head: both must be the same."""
    head, *rows = [node for node in table.all_within() if node.tag == "tr"] or [None]
    heads = [cell.text() for cell in _cells(head) for _ in range(_span(cell))] if head else []
    for row in rows:
        cells = [cell for cell in _cells(row) for _ in range(_span(cell))]
        for name, cell in zip(heads, cells, strict=False):
            label = cell.attributes.get("data-label", name)
            assert label == name, f"a cell of the column {name!r} is labelled {label!r}"


def _strings(node: Node) -> Iterator[str]:
    for child in node.children:
        yield from [child] if isinstance(child, str) else _strings(child)
