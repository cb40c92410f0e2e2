"""What forms of every door share: a refusal of the domain becomes a fault of the field that caused it, and a form that
edits what is there knows whether it still is as the person saw it.

So a form that the domain refuses is answered like one that the form itself refuses: 422, with everything still filled
in. One that somebody else was faster than is answered with 409 and both values of each field that differs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

import msgspec
from flask import request
from flask_wtf import FlaskForm
from wtforms import BooleanField, Field, HiddenField, IntegerField, PasswordField, SelectField
from wtforms.validators import Length, NumberRange, Optional
from wtforms.widgets import TextInput

from app.domain.errors import Conflict, DomainError
from app.domain.fields import numbers_of
from app.extensions import transaction_if

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=type[FlaskForm])

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
    beside: Any = None
    is_conflict = False
    differences: Sequence[Difference] = ()

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


def with_numbers(kind: type[msgspec.Struct]) -> Callable[[F], F]:
    """Gives a form a field for each number that a noun declares in a Struct (see `app.domain.fields`)."""

    def declare(form: F) -> F:
        for number in numbers_of(kind):
            between = NumberRange(number.least, number.most, f"Give a number of at least {number.least}.")
            field = IntegerField(
                number.title, [Optional(), between], description=number.help, render_kw={"inputmode": "numeric"}
            )
            setattr(form, number.name, field)
        return form

    return declare


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
