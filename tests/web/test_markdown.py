"""What people write as Markdown cannot do more than be read."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from app.web.markdown import markdown


def test_words_lists_links_and_code_are_shown() -> None:
    shown = markdown("# Large\n\nGood at **hard** things, see [here](https://example.org).\n\n- `a < b`\n")
    assert "<h3>Large</h3>" in shown
    assert "<strong>hard</strong>" in shown
    assert '<a href="https://example.org" rel="noopener nofollow">here</a>' in shown
    assert "<code>a &lt; b</code>" in shown


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "![x](https://example.org/follow.gif)",
        '<a href="/" style="position:fixed" onclick="x()">x</a>',
        "<svg><style>*{}</style></svg>",
        "[x](vbscript:x)",
    ],
)
def test_nothing_written_becomes_markup_of_its_own(text: str) -> None:
    found = Tags()
    found.feed(str(markdown(text)))
    assert found.seen and {tag for tag, _ in found.seen} <= {"p", "a"}
    for _, attributes in found.seen:
        assert set(attributes) <= {"href", "rel"}
        assert (attributes.get("href") or "https:").startswith("https:")


class Tags(HTMLParser):
    """The elements of some HTML with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
