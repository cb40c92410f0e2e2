"""What people write as Markdown cannot do more than be read."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from app.web.markdown import COLOURED, Blocks, markdown


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


def test_code_is_coloured_by_classes_unless_it_is_long_or_of_an_unknown_language() -> None:
    assert '<span class="k">return</span>' in markdown("```python\nreturn 1\n```")
    for plain in ("```nonsense\nreturn 1\n```", "```\nreturn 1\n```", f"```python\n{'return 1 ' * COLOURED}\n```"):
        assert "<span" not in markdown(plain)


PIECES = """# Title

Words that
go on.

- one

- two

```python
a = 1

b = 2
```

~~~~
```

~~~~

1. first

2. second

> quoted

The end"""


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
def test_markdown_in_pieces_is_rendered_block_by_block_whatever_the_pieces_are(size: int) -> None:
    blocks = Blocks()
    html = "".join(blocks.feed(PIECES[at : at + size]) or "" for at in range(0, len(PIECES), size))
    assert blocks.rest.strip().endswith("> quoted\n\nThe end")
    assert "".join((html + str(markdown(blocks.rest))).split()) == "".join(markdown(PIECES).split())


class Tags(HTMLParser):
    """The elements of some HTML with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
