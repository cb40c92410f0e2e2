"""What forms of every door share: a refusal of the domain becomes a fault of the field that caused it, and a form that
edits what is there knows whether it still is as the person saw it.

So a form that the domain refuses is answered like one that the form itself refuses: 422, with everything still filled
in. One that somebody else was faster than is answered with 409 and both values of each field that differs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

import msgspec
from flask import request
from flask_wtf import FlaskForm
from wtforms import (
    BooleanField,
    Field,
    HiddenField,
    IntegerField,
    PasswordField,
    RadioField,
    SelectField,
    SelectMultipleField,
    StringField,
    TextAreaField,
)
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined]  # the stubs are older
from wtforms.fields.core import UnboundField
from wtforms.validators import InputRequired, Length, NumberRange, Optional
from wtforms.widgets import TextInput

from app.domain import fields
from app.domain.errors import Conflict, DomainError
from app.extensions import transaction_if

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound="type[EditForm]")

PERCENT = re.compile(r"\d{1,3}")


class PercentsField(Field):
    """Whole percents, separated by commas; `data` is a list of them."""

    widget = TextInput()

    def process_formdata(self, valuelist: Sequence[str]) -> None:
        if not valuelist:
            return
        words = [word.strip().removesuffix("%").strip() for word in valuelist[0].split(",")]
        if not all(PERCENT.fullmatch(word) for word in words if word):
            raise ValueError("Give whole percents, separated by commas.")
        self.data = [int(word) for word in words if word]

    def _value(self) -> str:
        if self.raw_data:
            return str(self.raw_data[0])
        return ", ".join(str(percent) for percent in self.data or ())


class WordsField(Field):
    """Words, separated by commas; `data` is a list of them."""

    widget = TextInput()

    def process_formdata(self, valuelist: Sequence[str]) -> None:
        if valuelist:
            self.data = [word.strip() for word in valuelist[0].split(",") if word.strip()]

    def _value(self) -> str:
        return str(self.raw_data[0]) if self.raw_data else ", ".join(self.data or ())


class NumberField(StringField):
    """A whole or a decimal number; nothing is None."""

    def process_formdata(self, valuelist: Sequence[Any]) -> None:
        text = str(valuelist[0]).strip() if valuelist else ""
        self.data = None
        if text:
            self.data = _number(text)  # type: ignore[assignment]

    def _value(self) -> str:
        if self.raw_data:
            return str(self.raw_data[0])
        return "" if self.data is None else str(self.data).removesuffix(".0")


class JsonField(TextAreaField):
    """JSON of any shape; nothing is None."""

    def process_formdata(self, valuelist: Sequence[Any]) -> None:
        text = str(valuelist[0]).strip() if valuelist else ""
        self.data = None
        if text:
            try:
                self.data = json.loads(text)
            except (ValueError, RecursionError):
                raise ValueError('Give JSON, such as {"name": "value"}.') from None

    def _value(self) -> str:
        if self.raw_data:
            return str(self.raw_data[0])
        return "" if self.data is None else json.dumps(self.data, indent=2, ensure_ascii=False)


def is_confirmed_by(name: str) -> bool:
    """Whether the form that was sent bears the name of what it is about, as `ui.confirm_form(typed=name)` asks for."""
    return request.form.get("confirm") == name


class Value(NamedTuple):
    """What one field of a form holds: as it is compared, and as a person reads it."""

    name: str
    label: str
    data: Any
    words: str


class Difference(NamedTuple):
    """A field that two people want otherwise."""

    label: str
    theirs: str
    yours: str


class EditConflict(Conflict):
    """Somebody else has changed what a form edits since it was opened."""


class EditForm(FlaskForm):
    """A form that edits what is there. It carries the version that it was opened with: a digest of all its values, so
    that a change of anything it shows is noticed, wherever it was made.

    Make the form of what is there by `as_opened`, and run what it is sent for by `save`. `beside` is what belongs to the
    version though no field shows it, such as when a secret was replaced.
    """

    version = HiddenField(validators=[Length(max=64)])
    declared: Sequence[fields.Field] = ()  # by `with_inputs`
    beside: Any = None
    is_conflict = False
    differences: Sequence[Difference] = ()

    @property
    def numbers(self) -> list[Field]:
        """The inputs of declared fields that are numbers: pages show them beside each other."""
        return [self[field.name] for field in self.declared if field.name in self and field.is_number]

    @property
    def others(self) -> list[Field]:
        """The inputs of all other declared fields."""
        return [self[field.name] for field in self.declared if field.name in self and not field.is_number]

    def entered(self) -> dict[str, Any]:
        """What the inputs of declared fields hold, as the domain takes it. A secret that is left empty stays."""
        shown = [field for field in self.declared if field.name in self]
        values = {field.name: self[field.name].data for field in shown if not field.kept or self[field.name].data}
        return {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}

    def values(self) -> Iterator[Value]:
        """What is edited; a form with parts that are no fields adds theirs."""
        for field in self:
            if not isinstance(field, HiddenField):  # a token is one, and so is the version
                yield Value(field.name, field.label.text, _comparable(field.data), words_of(field))

    def as_opened(self, now: EditForm | None = None) -> Self:
        """This form with the version of what it shows, or of what another form shows that is filled in with how things
        are `now`."""
        self.version.data = (now or self)._digest()
        return self

    def save(self, current: Callable[[], EditForm], work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `work` as one unit of work, if what `current` makes, the form of how things are now, still has the
        version that this one was opened with. A form that was sent without a version edits any.

        Raises `EditConflict` otherwise; then the form knows the `differences` and carries the version of now, so that it
        overwrites when it is sent again.
        """

        def unchanged() -> None:
            now = current()
            version = now._digest()
            if self.version.data in ("", None, version):
                return
            theirs = {value.name: value for value in now.values()}
            yours = {value.name: value for value in self.values()}
            self.differences = [
                Difference(one.label, *(side[one.name].words if one.name in side else "" for side in (theirs, yours)))
                for one in {**theirs, **yours}.values()
                if one.name not in theirs or one.name not in yours or theirs[one.name].data != yours[one.name].data
            ]
            self.version.data, self.is_conflict = version, True
            raise EditConflict("Somebody else has changed this since you opened it.")

        return transaction_if(unchanged, work, *args, **kwargs)

    def _digest(self) -> str:
        values = [(value.name, value.data) for value in self.values()]
        return hashlib.sha256(msgspec.json.encode([values, self.beside], enc_hook=str)).hexdigest()[:32]


def _comparable(data: Any) -> Any:
    """A field's data so that the same reads the same, whether it was kept or typed."""
    if isinstance(data, str):
        return data.replace("\r\n", "\n").strip()
    if isinstance(data, list | tuple):
        return sorted(str(one) for one in data)
    return "" if data is None else data


def words_of(field: Any) -> str:
    """What a field says, in words for people. A secret is never told."""
    if isinstance(field, PasswordField):
        return "A new one: enter it again" if field.data else "As it is"
    if isinstance(field, BooleanField):
        return "Yes" if field.data else "No"
    if isinstance(field, SelectField):
        chosen = field.data if isinstance(field.data, list) else [] if field.data is None else [field.data]
        labels = {str(choice[0]): str(choice[1]) for choice in field.iter_choices()} if field.choices else {}
        return ", ".join(labels.get(str(one), str(one)) for one in chosen)
    return str(field._value() or "").strip()


def with_inputs(
    kind: fields.Fields, *, but: Sequence[str] = (), only: Callable[[fields.Field], bool] | None = None
) -> Callable[[F], F]:
    """Gives a form an input for each field that a noun declares in a Struct (see `app.domain.fields`), but for those
    that it shows in a way of its own. They stand before the others. Of a form that has some already it completes them.
    """

    def declare(form: F) -> F:
        declared = [
            field for field in fields.fields_of(kind) if field.name not in but and (only is None or only(field))
        ]
        for place, field in enumerate(declared, -len(declared)):
            own = getattr(form, field.name, None)
            if own is None:
                # A choice that is not sent is a fault, and not the usual one.
                is_choice = field.type == "choice" and not field.several
                made = input_of(field, default=None if is_choice else field.usual)
                made.creation_counter = place  # by which WTForms sorts them
                setattr(form, field.name, made)
            elif not isinstance(own, UnboundField):
                raise TypeError(f"no input of a form can be called {field.name}")
        form.declared = tuple(declared)
        return form

    return declare


def input_of(field: fields.Field, *, default: Any) -> Any:
    """The input that shows a field and reads it; `default` is what it holds when it is neither filled in nor sent."""
    attributes: dict[str, Any] = dict(field.attributes)
    arguments: dict[str, Any] = {"description": field.help, "default": default, "render_kw": attributes}
    validators: list[Any] = [InputRequired(field.needed)] if field.required else []
    if field.kept:
        return PasswordField(field.title, validators, description=field.help, render_kw=attributes)
    if field.type == "boolean":
        return BooleanField(field.title, **arguments)
    if field.type == "choice":
        choices = [SelectChoice(choice, field.labels.get(choice, choice)) for choice in field.choices]
        if field.several:
            validators += [InputRequired("Choose at least one.")] if field.least else []
            return SelectMultipleField(field.title, validators, choices=choices, **arguments)
        return (RadioField if field.spread else SelectField)(field.title, validators, choices=choices, **arguments)
    if field.several:
        return WordsField(field.title, validators, **arguments | {"render_kw": {"autocomplete": "off", **attributes}})
    if field.is_whole:
        attributes |= {"inputmode": "numeric", "min": field.least}
        between = NumberRange(field.least, field.most, f"Give a number of at least {field.least}.")
        return IntegerField(field.title, [*validators, Optional(), between], **arguments)
    if field.type == "number":
        return NumberField(field.title, validators, **arguments | {"render_kw": {"inputmode": "decimal"}})
    if field.type == "json":
        return JsonField(field.title, validators, **arguments)
    if field.most < fields.UNBOUNDED:
        attributes["maxlength"] = field.most
        validators.append(Length(max=field.most, message="Use at most %(max)d characters."))
    if field.lines > 1:
        attributes["rows"] = field.lines
        return TextAreaField(field.title, validators, **arguments)
    return StringField(field.title, validators, **arguments | {"render_kw": {"autocomplete": "off", **attributes}})


def _number(text: str) -> int | float:
    try:
        return int(text) if text.lstrip("+-").isdecimal() and len(text) < 20 else _finite(text)
    except ValueError:
        raise ValueError("Give a number, such as 60.") from None


def _finite(text: str) -> float:
    number = float(text)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError
    return number


def blame(form: FlaskForm, error: DomainError, **names: str) -> int:
    """Puts `error` at its field; `names` maps the domain's names to the form's where they differ. Returns the status to
    answer with.

    A fault without a field of this form is the whole form's. An `EditConflict` is shown by the form itself.
    """
    if isinstance(error, EditConflict):
        return error.status
    name = names.get(error.field or "", error.field or "")
    if name in form:
        field = form[name]
        field.errors = [*field.errors, error.message]
    else:
        form.form_errors.append(error.message)
    return 422
