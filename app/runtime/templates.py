"""Templates of prompts: text with variables in double braces, such as `{{language}}`."""

from __future__ import annotations

import re
from collections.abc import Mapping

Value = str | int | float  # of a variable
_VARIABLE = re.compile(r"\{\{[ \t]*([A-Za-z_][A-Za-z0-9_]{0,99})[ \t]*\}\}")


class WrongVariable(Exception):
    """A variable without a value, or a value without a variable; `name` is its name."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def variables_of(template: str) -> list[str]:
    """The names of a template's variables, each once, in the order in which they come."""
    return list(dict.fromkeys(_VARIABLE.findall(template)))


def fill_in(template: str, values: Mapping[str, Value]) -> str:
    """The template with these values; what looks like a variable in a value stays as it is. Raises `WrongVariable`."""
    names = variables_of(template)
    for name in names:
        if name not in values:
            raise WrongVariable(name, f"The variable '{name}' needs a value.")
    for name in values:
        if name not in names:
            raise WrongVariable(name, f"The template has no variable '{name}'.")
    return _VARIABLE.sub(lambda found: f"{values[found[1]]}", template)
