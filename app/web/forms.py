"""What the forms of every door share: the domain's refusals become errors of the field at fault, and an edit form
notices if somebody else has changed the object since the form was opened.

A form that the domain refuses is answered like one that the form itself refuses: with 422, and everything still filled
in. If somebody else was faster, the answer is 409 with both values of each field that differs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

import msgspec
from flask import abort, jsonify, request
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
from wtforms.validators import InputRequired, Length, NumberRange, Optional, ValidationError
from wtforms.widgets import TextInput

from app.domain import fields
from app.domain.errors import Conflict, DomainError
from app.extensions import transaction_if

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound="type[EditForm]")

CHECK = "X-Check-Field"
PERCENT = re.compile(r"\d{1,3}")


class PercentsField(Field):
    """Whole percentages, separated by commas. `data` is a list of them."""

    widget = TextInput()

    def process_formdata(self, valuelist: Sequence[str]) -> None:
        if not valuelist:
            return
        words = [word.strip().removesuffix("%").strip() for word in valuelist[0].split(",")]
        if not all(PERCENT.fullmatch(word) for word in words if word):
            raise ValueError("Enter whole percentages, separated by commas.")
        self.data = [int(word) for word in words if word]

    def _value(self) -> str:
        if self.raw_data:
            return str(self.raw_data[0])
        return ", ".join(str(percent) for percent in self.data or ())


class WordsField(Field):
    """Words, separated by commas. `data` is a list of them."""

    widget = TextInput()

    def process_formdata(self, valuelist: Sequence[str]) -> None:
        if valuelist:
            self.data = [word.strip() for word in valuelist[0].split(",") if word.strip()]

    def _value(self) -> str:
        return str(self.raw_data[0]) if self.raw_data else ", ".join(self.data or ())


class NumberField(StringField):
    """A whole or a decimal number. Empty means None."""

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
    """Any JSON. Empty means None."""

    def process_formdata(self, valuelist: Sequence[Any]) -> None:
        text = str(valuelist[0]).strip() if valuelist else ""
        self.data = None
        if text:
            try:
                self.data = json.loads(text)
            except (ValueError, RecursionError):
                raise ValueError('Enter JSON, such as {"name": "value"}.') from None

    def _value(self) -> str:
        if self.raw_data:
            return str(self.raw_data[0])
        return "" if self.data is None else json.dumps(self.data, indent=2, ensure_ascii=False)


def judged(check: Callable[[Any], object]) -> Callable[[Any, Field], None]:
    """A validator that runs a check of the domain on what was entered, so that one answer names all that is wrong."""

    def judge(form: Any, field: Field) -> None:
        if field.errors or field.data in (None, "", []):
            return
        try:
            check(field.data)
        except DomainError as error:
            raise ValidationError(error.message) from None

    return judge


def is_confirmed_by(name: str) -> bool:
    """Whether the request contains the name of the object, as `ui.confirm_form(typed=name)` asks for."""
    return request.form.get("confirm") == name


class Value(NamedTuple):
    """The value of one form field: `data` to compare, `words` to show."""

    name: str
    label: str
    data: Any
    words: str


class Difference(NamedTuple):
    """A field to which two people gave different values."""

    label: str
    theirs: str
    yours: str


class EditConflict(Conflict):
    """Somebody else has changed the object since the form was opened."""


class CheckedForm(FlaskForm):
    """A form whose fields can be checked one by one before it is sent: scripts ask when a field loses focus.

    The request is the same POST with the name of the field in the header `X-Check-Field`. Its answer has the errors of that
    field alone, and nothing after the form's own validation runs.
    """

    checks_fields = True

    def validate_on_submit(self, extra_validators: Any = None) -> bool:
        valid: bool = super().validate_on_submit(extra_validators)
        name = request.headers.get(CHECK)
        if name is not None:
            errors = self[name].errors if name in self else ()
            abort(jsonify(errors=[str(error) for error in errors]))
        return valid


class EditForm(CheckedForm):
    """A form that edits an existing object. It carries the version with which it was opened: a digest of all its
    values. So it notices a change of anything that it shows, wherever the change was made.

    Create the form of the current object with `as_opened`, and run its changes with `save`. `beside` is a value that
    belongs to the version although no field shows it, such as when a secret was replaced.
    """

    version = HiddenField(validators=[Length(max=64)])
    declared: Sequence[fields.Field] = ()  # set by `with_inputs`
    beside: Any = None
    is_conflict = False
    differences: Sequence[Difference] = ()

    @property
    def numbers(self) -> list[Field]:
        """The inputs of declared fields that are numbers. Pages show them next to each other."""
        return [self[field.name] for field in self.declared if field.name in self and field.is_number]

    @property
    def others(self) -> list[Field]:
        """The inputs of all other declared fields."""
        return [self[field.name] for field in self.declared if field.name in self and not field.is_number]

    def entered(self) -> dict[str, Any]:
        """The values of the inputs of declared fields, as the domain takes them. An empty secret stays unchanged."""
        fields_shown = [field for field in self.declared if field.name in self]
        values = {
            field.name: self[field.name].data for field in fields_shown if not field.kept or self[field.name].data
        }
        return {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}

    def values(self) -> Iterator[Value]:
        """The values that the form edits. A form with parts that are not fields adds their values."""
        for field in self:
            if not isinstance(field, HiddenField):  # such as the CSRF token and the version
                yield Value(field.name, field.label.text, _comparable(field.data), words_of(field))

    def as_opened(self, now: EditForm | None = None) -> Self:
        """Returns this form with the version of its values, or of the values of `now`, a form of the current object."""
        self.version.data = (now or self)._digest()
        return self

    def save(self, current: Callable[[], EditForm], work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `work` as one unit of work, if the object still has the version with which this form was opened.
        `current` returns the form of the current object. A form without a version edits any version.

        Otherwise raises `EditConflict`. The form then has the `differences` and carries the current version, so sending
        it again overwrites the other change.
        """

        def unchanged() -> None:
            now = current()
            version = now._digest()
            if self.version.data in ("", None, version):
                return
            theirs = {value.name: value for value in now.values()}
            yours = {value.name: value for value in self.values()}
            self.differences = [
                Difference(
                    value.label, *(side[value.name].words if value.name in side else "" for side in (theirs, yours))
                )
                for value in {**theirs, **yours}.values()
                if value.name not in theirs
                or value.name not in yours
                or theirs[value.name].data != yours[value.name].data
            ]
            self.version.data, self.is_conflict = version, True
            raise EditConflict("Somebody else has changed this since you opened it.")

        return transaction_if(unchanged, work, *args, **kwargs)

    def _digest(self) -> str:
        values = [(value.name, value.data) for value in self.values()]
        return hashlib.sha256(msgspec.json.encode([values, self.beside], enc_hook=str)).hexdigest()[:32]


def _comparable(data: Any) -> Any:
    """Normalises a field's data, so that equal values compare equal whether stored or typed."""
    if isinstance(data, str):
        return data.replace("\r\n", "\n").strip()
    if isinstance(data, list | tuple):
        return sorted(str(one) for one in data)
    return "" if data is None else data


def words_of(field: Any) -> str:
    """The value of a field, in words for people. A secret is never shown."""
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
    kind: fields.Fields, *, without: Sequence[str] = (), only: Callable[[fields.Field], bool] | None = None
) -> Callable[[F], F]:
    """Gives a form an input for each field that a noun declares in a Struct (see `app.domain.fields`), except those
    `without` one and those that `only` rejects. They come before the form's other inputs. Inputs that the form already
    has are kept."""

    def declare(form: F) -> F:
        declared = [
            field for field in fields.fields_of(kind) if field.name not in without and (only is None or only(field))
        ]
        for position, field in enumerate(declared, -len(declared)):
            existing = getattr(form, field.name, None)
            if existing is None:
                # A choice that was not sent is an error; it does not become the default.
                is_choice = field.type == "choice" and not field.several
                input = input_of(field, default=None if is_choice else field.usual)
                input.creation_counter = position  # WTForms sorts fields by this
                setattr(form, field.name, input)
            elif not isinstance(existing, UnboundField):
                raise TypeError(f"no input of a form can be called {field.name}")
        form.declared = tuple(declared)
        return form

    return declare


def input_of(field: fields.Field, *, default: Any) -> Any:
    """The input that shows and reads a field. `default` is its value if it is neither filled in nor sent."""
    checked = judged(partial(fields.usable, field))
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
        validators.append(checked)
        return WordsField(field.title, validators, **arguments | {"render_kw": {"autocomplete": "off", **attributes}})
    if field.is_whole:
        attributes |= {"inputmode": "numeric", "min": field.least}
        between = NumberRange(field.least, field.most, f"Enter a number of at least {field.least}.")
        return IntegerField(field.title, [*validators, Optional(), between], **arguments)
    if field.type == "number":
        return NumberField(field.title, validators, **arguments | {"render_kw": {"inputmode": "decimal"}})
    if field.type == "json":
        return JsonField(field.title, validators, **arguments)
    if field.most < fields.UNBOUNDED:
        attributes["maxlength"] = field.most
        validators.append(Length(max=field.most, message="Use at most %(max)d characters."))
    validators.append(checked)
    if field.lines > 1:
        attributes["rows"] = field.lines
        return TextAreaField(field.title, validators, **arguments)
    return StringField(field.title, validators, **arguments | {"render_kw": {"autocomplete": "off", **attributes}})


def _number(text: str) -> int | float:
    try:
        return int(text) if text.lstrip("+-").isdecimal() and len(text) < 20 else _finite(text)
    except ValueError:
        raise ValueError("Enter a number, such as 60.") from None


def _finite(text: str) -> float:
    number = float(text)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError
    return number


def blame(form: FlaskForm, error: DomainError, **names: str) -> int:
    """Adds `error` to its field and returns the status of the response. `names` maps the domain's field names to the
    form's where they differ.

    An error without a field of this form belongs to the whole form. An `EditConflict` is shown by the form itself.
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
