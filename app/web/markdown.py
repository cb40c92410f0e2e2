"""Renders Markdown that people or models wrote as safe HTML: no raw HTML, no images, no scripts, no link that leaks the
address. Code is coloured by classes, as styles in the markup are not allowed."""

from __future__ import annotations

import re
from functools import cache

import nh3
from markdown_it import MarkdownIt
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES
from pygments.util import ClassNotFound

TAGS = {
    "p", "br", "hr", "ul", "ol", "li", "strong", "em", "s", "code", "pre", "blockquote", "a", "span",
    "h3", "h4", "h5", "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
COLOURED = 20_000  # characters of code; longer code stays plain, for some languages take long to read
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_GOES_ON = re.compile(r"[\s>*+-]|\d+[.)]")  # a line behind a blank one that may belong to the list or quote before it


def markdown(text: str) -> Markup:
    """Returns `text` as HTML. Its headings start at the third level, below those of the page."""
    html = _reader().render(text)
    for level in (3, 2, 1):
        html = html.replace(f"<h{level}>", f"<h{level + 2}>").replace(f"</h{level}>", f"</h{level + 2}>")
    clean = nh3.clean(
        html,
        tags=TAGS,
        attributes={"a": {"href"}, "ol": {"start"}},
        allowed_classes={"span": _classes()},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener nofollow",
    )
    return Markup(clean)  # noqa: S704 - cleaned one line above


class Blocks:
    """Markdown that comes in pieces: each block is rendered once, when the next has begun, so that the work is linear.

    A list or a quote ends where a line begins that can't belong to it; a fence holds everything up to its end.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []  # of the block that has not ended
        self._line: list[str] = []  # pieces of a line that has not ended
        self._fence = ""
        self._after_blank = False

    def feed(self, text: str) -> Markup | None:
        """Takes a piece. Returns the blocks that ended with it as HTML, None if there are none."""
        *ended, rest = text.split("\n")
        html: list[Markup] = []
        for line in ended:
            whole = "".join([*self._line, line])
            self._line = []
            if self._begins_block(whole):
                html.append(markdown("\n".join(self._lines)))
                self._lines = []
            self._take(whole)
        if rest:
            self._line.append(rest)
        return Markup("").join(html) if html else None

    @property
    def rest(self) -> str:
        """What has come of the block that has not ended."""
        return "\n".join([*self._lines, "".join(self._line)])

    def _begins_block(self, line: str) -> bool:
        is_text = bool(line.strip()) and not _GOES_ON.match(line)
        return not self._fence and self._after_blank and is_text and any(one.strip() for one in self._lines)

    def _take(self, line: str) -> None:
        self._lines.append(line)
        self._after_blank = not line.strip()
        fence = _FENCE.match(line)
        if fence is None:
            return
        if not self._fence:
            self._fence = fence[1]
        elif fence[1].startswith(self._fence) and not line.strip().strip(self._fence[0]):
            self._fence = ""


@cache
def _reader() -> MarkdownIt:
    reader = MarkdownIt("commonmark", {"html": False, "highlight": _coloured})
    return reader.enable(["table", "strikethrough"]).disable("image")


@cache
def _formatter() -> HtmlFormatter[str]:
    return HtmlFormatter(nowrap=True)


@cache
def _classes() -> set[str]:
    """The names of the classes that colour code."""
    return {name for name in STANDARD_TYPES.values() if name}


def _coloured(code: str, language: str, _attributes: str) -> str:
    """Code as HTML, "" where it stays plain."""
    if not language or len(code) > COLOURED:
        return ""
    try:
        lexer = get_lexer_by_name(language, stripnl=False)
    except ClassNotFound:
        return ""
    return str(highlight(code, lexer, _formatter()))
