"""People's own credentials of providers: sent upstream with the calls of a person's own keys, tokens and playground, where
the provider allows it.

A credential is sealed for its row and for where its provider's requests went when it was entered: once the provider has
moved, it is sent nowhere, and its owner enters it again.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, Select, String, Text, func, select, text
from sqlalchemy import delete as delete_rows
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from app import current
from app import providers as adapters
from app.clock import from_ms, now
from app.directory import PersonalCredential, place_of_credential
from app.domain import audit, names, providers
from app.domain.changes import mark_for_publication
from app.domain.errors import Conflict, Forbidden, Invalid, NotFound
from app.domain.person import Person
from app.domain.providers import Provider
from app.domain.search import one_of
from app.extensions import Base, db
from app.providers import settings as adapter_settings
from app.runtime.ids import new_id

MOST = 50  # of a person
LONGEST = 4096  # characters of a token

Defaults = dict[str, PersonalCredential]  # by the provider's id


class PersonalCredentialsOff(Forbidden):
    """This provider takes no credentials of people."""

    code = "personal_credentials_off"


class Credential(Base):
    """A person's credential of a provider. `hint` is its mask, `destination` where it may be sent. Of each provider a person
    has one default, which is the one that is sent."""

    __tablename__ = "personal_credential"
    __table_args__ = (
        Index("uq_personal_credential_name", "person_id", "provider_id", "name", unique=True),
        Index(
            "uq_personal_credential_default",
            "person_id",
            "provider_id",
            unique=True,
            sqlite_where=text("is_default"),
            postgresql_where=text("is_default"),
        ),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id", ondelete="CASCADE"))
    provider_id: Mapped[str] = mapped_column(ForeignKey("provider.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(names.LONGEST))
    sealed: Mapped[str] = mapped_column(Text)
    destination: Mapped[str] = mapped_column(String(64))
    hint: Mapped[str] = mapped_column(String(16))
    is_default: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(default=now)
    last_used_ms: Mapped[int] = mapped_column(default=0, server_default="0")  # see `app.ledger.list_order`

    person: Mapped[Person] = relationship("Person", lazy="joined")
    provider: Mapped[Provider] = relationship("Provider", lazy="joined")

    @property
    def last_used_at(self) -> datetime | None:
        """When it was last sent upstream, to a minute."""
        return from_ms(self.last_used_ms) if self.last_used_ms else None

    @property
    def is_sent(self) -> bool:
        """Whether it goes to where its provider's requests go now, as far as it is the default."""
        return is_offered(self.provider) and self.destination == _destination_of(self.provider)

    @property
    def place(self) -> str:
        return place_of_credential(self.id, self.person_id, self.provider_id, self.destination)

    def summary(self) -> dict[str, Any]:
        return {
            "provider": self.provider.name,
            "name": self.name,
            "masked": self.hint,
            "is_default": self.is_default,
        }


def is_offered(provider: Provider) -> bool:
    """Whether people can store credentials of their own for this provider."""
    if provider.kind not in adapters.kinds() or provider.settings.get("personal_credentials") is not True:
        return False
    return bool(adapter_settings.names_with(adapters.adapter(provider.kind).Settings, "secret"))


def offered() -> list[Provider]:
    """The providers that people can store credentials for, by name."""
    return [one for one in db.session.scalars(providers.search(status="active")) if is_offered(one)]


def of(person: Person) -> Select[Credential]:
    """A query of a person's credentials, newest first."""
    return select(Credential).where(Credential.person_id == person.id).order_by(Credential.id.desc())


def of_provider(provider: Provider) -> list[Credential]:
    return list(db.session.scalars(select(Credential).where(Credential.provider_id == provider.id)))


def get_own(person: Person, id: str) -> Credential:
    """The person's own credential with this id. Raises `NotFound`."""
    found = db.session.scalar(of(person).where(Credential.id == id))
    if found is None:
        raise NotFound("This credential does not exist.")
    return found


def defaults_of(session: Session, person_ids: set[str]) -> dict[str, Defaults]:
    """What the gateway is told of these people's default credentials, by person."""
    found: dict[str, Defaults] = {}
    columns = select(Credential.person_id, Credential.provider_id, Credential.id, Credential.sealed)
    rows = columns.where(one_of(Credential.person_id, person_ids), Credential.is_default) if person_ids else None
    for person_id, provider_id, id, sealed in () if rows is None else session.execute(rows):
        found.setdefault(person_id, {})[provider_id] = PersonalCredential(id=id, sealed=sealed)
    return found


def create(*, by: Person, provider: str, name: str, token: str) -> Credential:
    """Store a person's own credential of a provider, named by id or name; the first one is the default.

    Raises `Invalid` naming the field, `PersonalCredentialsOff`, or `Conflict` for a name that is taken or too many.
    """
    found = _provider(provider)
    _must_be_offered(found)
    if (db.session.scalar(select(func.count()).where(Credential.person_id == by.id)) or 0) >= MOST:
        raise Conflict(f"You have {MOST} credentials. Delete one first.")
    credential = Credential(id=new_id(), person_id=by.id, person=by, provider_id=found.id, provider=found)
    with db.session.no_autoflush:
        _rename(credential, name)
        _seal(credential, token)
        credential.is_default = _default_of(credential) is None
    db.session.add(credential)
    db.session.flush()
    _changed(credential, by, "credential.create", after=credential.summary())
    return credential


def update(credential: Credential, *, by: Person, name: str | None = None, token: str | None = None) -> Credential:
    """Change the name or the token. Raises as `create`."""
    before = credential.summary()
    with db.session.no_autoflush:
        if name is not None:
            _rename(credential, name)
        if token is not None:
            _must_be_offered(credential.provider)
            _seal(credential, token)
    db.session.flush()
    facts = {"token": "replaced"} if token is not None else None
    _changed(credential, by, "credential.update", before=before, after=credential.summary(), facts=facts)
    return credential


def make_default(credential: Credential, *, by: Person) -> Credential:
    """Send this one from now on with the person's calls to its provider."""
    if credential.is_default:
        return credential
    before = credential.summary()
    former = _default_of(credential)
    if former is not None:
        former.is_default = False
        db.session.flush()
    credential.is_default = True
    db.session.flush()
    _changed(credential, by, "credential.update", before=before, after=credential.summary())
    return credential


def delete(credential: Credential, *, by: Person | None) -> None:
    """Delete a credential. The oldest that is left for its provider becomes the default."""
    _changed(credential, by, "credential.delete", before=credential.summary(), after={})
    db.session.delete(credential)
    db.session.flush()
    if credential.is_default:
        left = db.session.scalar(_same(credential).order_by(Credential.id).limit(1))
        if left is not None:
            left.is_default = True
            db.session.flush()


def forget(person: Person) -> None:
    """Delete the credentials of a person who is being deleted."""
    db.session.execute(delete_rows(Credential).where(Credential.person_id == person.id))


def seal_anew(credential: Credential) -> None:
    """Seal a credential with the active encryption key. Raises `SealingError` if no kept key opens it."""
    plain = current.sealer().open(credential.sealed, credential.place)
    credential.sealed = current.sealer().seal(plain, credential.place)
    mark_for_publication("person", credential.person_id)


def _provider(named: str) -> Provider:
    found = db.session.get(Provider, named) or db.session.scalar(
        select(Provider).where(func.lower(Provider.name) == named.strip().lower())
    )
    if found is None:
        raise Invalid("This provider does not exist.", "provider")
    return found


def _must_be_offered(provider: Provider) -> None:
    if not is_offered(provider):
        raise PersonalCredentialsOff(f"{provider.name} takes no credentials of people.", "provider")


def _destination_of(provider: Provider) -> str:
    return adapter_settings.destination_of(adapters.adapter(provider.kind).Settings, provider.settings)


def _rename(credential: Credential, name: str) -> None:
    credential.name = names.checked(name)
    if db.session.scalar(_same(credential).where(Credential.name == credential.name).limit(1)) is not None:
        raise Conflict(f"You have a credential named {credential.name} for this provider.", "name")


def _seal(credential: Credential, token: str) -> None:
    if not 1 <= len(token) <= LONGEST or not adapter_settings.is_sendable(token):
        raise Invalid(
            f"Enter 1 to {LONGEST} characters of printable ASCII, without line breaks or blanks around them.", "token"
        )
    credential.destination = _destination_of(credential.provider)
    credential.sealed = current.sealer().seal(token.encode(), credential.place)
    credential.hint = providers.masked(token)


def _same(credential: Credential) -> Select[Credential]:
    """The person's other credentials for the same provider."""
    return select(Credential).where(
        Credential.person_id == credential.person_id,
        Credential.provider_id == credential.provider_id,
        Credential.id != credential.id,
    )


def _default_of(credential: Credential) -> Credential | None:
    return db.session.scalar(_same(credential).where(Credential.is_default))


def _changed(credential: Credential, by: Person | None, action: str, **told: Any) -> None:
    owner = credential.person.username
    audit.record(by, action, "credential", credential.id, name=credential.name, on_behalf_of=owner, **told)
    mark_for_publication("person", credential.person_id)
