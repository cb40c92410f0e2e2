"""A conversation as one text, for models that are given no messages: by a template in Jinja, as models publish theirs, or
plainly.

A template is text of somebody else's. It runs in Jinja's sandbox, with the filters and methods that such templates use, and
within bounds: rounds of its loops and calls, and the length of every text it makes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

import msgspec
from jinja2 import TemplateError, Undefined, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app.providers.conversation import Conversation, Media, Text, Tool, ToolCall, ToolResult, Turn
from app.providers.errors import UpstreamError

MOST_ROUNDS = 100_000
LONGEST_TEXT = 8 << 20  # characters
LONGEST_TEMPLATE = 64 << 10

_FILTERS = (
    "trim", "first", "last", "upper", "lower", "capitalize", "title", "length", "count", "default", "d", "string",
    "int", "float", "list", "items", "dictsort", "select", "selectattr", "reject", "rejectattr", "map", "reverse", "sort",
    "unique", "tojson", "safe", "abs", "min", "max", "sum", "round",
)  # fmt: skip
_METHODS: dict[type[Any], tuple[str, ...]] = {
    str: ("strip", "lstrip", "rstrip", "split", "rsplit", "splitlines", "startswith", "endswith", "upper", "lower", "title",
          "capitalize", "find", "rfind", "index", "count", "isdigit", "isspace", "isalpha", "removeprefix", "removesuffix",
          "partition", "rpartition", "replace"),
    dict: ("get", "items", "keys", "values"),
    list: ("index", "count"),
    tuple: ("index", "count"),
}  # fmt: skip


class TemplateFailed(Exception):
    """A template that can't be read, or that did not end well; the message is safe to show."""


class _Bounds:
    """What one rendering has left. A process renders one at a time: nothing in it waits."""

    def __init__(self) -> None:
        self.rounds = MOST_ROUNDS

    def spend(self) -> None:
        self.rounds -= 1
        if self.rounds < 0:
            raise TemplateFailed("the template takes too many rounds")


_bounds = _Bounds()


def _each(values: Any) -> Iterator[Any]:
    """The values of a loop, counted."""
    for value in () if isinstance(values, Undefined) else values:
        _bounds.spend()
        yield value


def _short(value: Any) -> Any:
    if isinstance(value, str | list | tuple) and len(value) > LONGEST_TEXT:
        raise TemplateFailed("the template makes a text that is too long")
    return value


def _raise(message: object = "") -> None:
    raise TemplateFailed(str(message)[:300])


def _range(*bounds: int) -> Iterator[int]:
    return itertools.islice(range(*bounds), MOST_ROUNDS)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "*", "%", "**"))

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        self.filters = {name: self.filters[name] for name in _FILTERS} | {
            "replace": _replace, "indent": _indent, "join": _join, "tojson": _json, "_each": _each, "_short": _short,
        }  # fmt: skip
        self.globals = {"raise_exception": _raise, "range": _range, "namespace": self.globals["namespace"]}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        return all(attr in names for kind, names in _METHODS.items() if isinstance(obj, kind))

    def wrap_str_format(self, value: Any) -> None:
        """`format` is no method of these texts."""

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        _bounds.spend()
        if getattr(function, "__name__", "") == "replace" and isinstance(getattr(function, "__self__", None), str):
            return _replace(function.__self__, *args, **kwargs)
        return _short(super().call(context, function, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _bounds.spend()
        if operator in ("*", "**") and not (isinstance(left, int | float) and isinstance(right, int | float)):
            raise TemplateFailed("the template multiplies a text")
        if operator == "**" and (abs(left) > 1 << 32 or abs(right) > 8):
            raise TemplateFailed("the template makes a number that is too large")
        if operator == "%" and isinstance(left, str):
            raise TemplateFailed("the template formats a text with %")
        return _short(super().call_binop(context, operator, left, right))


def _replace(value: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, old, new = str(value), str(old), str(new)
    if len(text) + text.count(old) * len(new) > LONGEST_TEXT:
        raise TemplateFailed("the template makes a text that is too long")
    return str.replace(text, old, new, -1 if count is None else count)


def _join(values: Any, between: str = "", attribute: Any = None) -> str:
    texts = [str(value if attribute is None else _environment.getitem(value, attribute)) for value in _each(values)]
    if sum(map(len, texts)) + len(between) * len(texts) > LONGEST_TEXT:
        raise TemplateFailed("the template makes a text that is too long")
    return between.join(texts)


def _indent(text: Any, width: int = 4, first: bool = False) -> str:
    pad = " " * min(int(width), 64)
    lines = str(text).splitlines(keepends=True)
    return "".join(pad + line if place or first else line for place, line in enumerate(lines))


def _json(value: Any, indent: int | None = None, **_: Any) -> str:
    said = msgspec.json.encode(value)
    return (msgspec.json.format(said, indent=min(indent, 8)) if indent else said).decode()


_environment = _Environment()


@lru_cache(maxsize=64)
def _compiled(source: str) -> Callable[..., Iterator[str]]:
    if len(source) > LONGEST_TEMPLATE:
        raise TemplateFailed("the template is too long")
    try:
        tree = _environment.parse(source)
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = nodes.Filter(loop.iter, "_each", [], [], None, None, lineno=loop.lineno)
        for target in list(tree.find_all(nodes.Node)):
            _bound_texts(target)
        template = _environment.template_class.from_code(
            _environment, _environment.compile(tree), _environment.make_globals(None)
        )
    except (TemplateError, RecursionError, SyntaxError) as error:
        raise TemplateFailed(f"the template can't be read: {str(error)[:300]}") from None
    return template.generate


def _bound_texts(node: nodes.Node) -> None:
    """Have each text that is put together looked at."""
    if isinstance(node, nodes.AssignBlock) and node.filter is None:
        node.filter = nodes.Filter(None, "_short", [], [], None, None, lineno=node.lineno)
    for name, value in list(node.iter_fields()):
        if isinstance(value, nodes.Concat):
            setattr(node, name, _bounded(value))
        elif isinstance(value, list):
            value[:] = [_bounded(one) if isinstance(one, nodes.Concat) else one for one in value]


def _bounded(concat: nodes.Concat) -> nodes.Filter:
    return nodes.Filter(concat, "_short", [], [], None, None, lineno=concat.lineno)


def check(source: str) -> None:
    """Raises `TemplateFailed` for a template that can't be read."""
    _compiled(source)


def render(source: str, **values: Any) -> str:
    """What the template makes of the values. Raises `TemplateFailed`."""
    generate = _compiled(source)
    _bounds.__init__()  # type: ignore[misc]
    pieces, size = [], 0
    try:
        for piece in generate(**values):
            size += len(piece)
            if size > LONGEST_TEXT:
                raise TemplateFailed("the template makes a text that is too long")
            pieces.append(piece)
    except TemplateFailed:
        raise
    except Exception as error:  # a template can fail in any way
        raise TemplateFailed(f"the template fails: {str(error)[:300]}") from None
    return "".join(pieces)


def prompt_of(conversation: Conversation, template: str | None, tokens: dict[str, str]) -> str:
    """The conversation as one text. Raises `UpstreamError` for what it can't hold."""
    if template is None:
        if conversation.tools and conversation.choice != "none":
            raise UpstreamError("This model takes no tools.", refused=True, status=400, param="tools")
        return _plainly(conversation)
    tools = [_tool(tool) for tool in conversation.tools] or None
    if tools and "tools" not in template:
        raise UpstreamError("This model takes no tools.", refused=True, status=400, param="tools")
    try:
        return render(
            template, messages=messages_of(conversation), tools=tools, add_generation_prompt=True,
            **{"bos_token": "", "eos_token": ""} | tokens,
        )  # fmt: skip
    except TemplateFailed as error:
        raise UpstreamError(f"The model's chat template does not take this conversation: {error}.") from None


def messages_of(conversation: Conversation) -> list[dict[str, Any]]:
    """The turns as templates know them. Raises `UpstreamError` for pictures and sounds."""
    return [message for turn in conversation.turns for message in _messages(turn)]


def _messages(turn: Turn) -> Iterable[dict[str, Any]]:
    for part in turn.parts:
        if isinstance(part, ToolResult):
            yield {"role": "tool", "tool_call_id": part.id, "content": _text(part.parts)}
    calls = [part for part in turn.parts if isinstance(part, ToolCall)]
    if not calls and any(isinstance(part, ToolResult) for part in turn.parts) and not _text(turn.parts):
        return
    message: dict[str, Any] = {"role": turn.role, "content": _text(turn.parts)}
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _arguments(call)}}
            for call in calls
        ]
    yield message


def _arguments(call: ToolCall) -> Any:
    try:
        return msgspec.json.decode(call.arguments)
    except msgspec.DecodeError:
        return call.arguments


def _text(parts: Iterable[Any]) -> str:
    texts = []
    for part in parts:
        if isinstance(part, Media):
            raise UpstreamError(f"This model takes no {part.kind}.", refused=True, status=400, param="messages")
        if isinstance(part, Text):
            texts.append(part.text)
    return "".join(texts)


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description or "", "parameters": tool.parameters}
    return {"type": "function", "function": function}


_SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}


def _plainly(conversation: Conversation) -> str:
    """A lone question as it is; of a longer conversation each turn with its speaker, and whose turn it is."""
    messages = messages_of(conversation)
    if len(messages) == 1 and messages[0]["role"] == "user":
        return str(messages[0]["content"])
    told = [f"{_SPEAKERS[message['role']]}: {message['content']}" for message in messages]
    return "\n\n".join([*told, "Assistant:"])
