"""A person's own credentials of providers, which go upstream with their own calls."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.blueprints.api.contract import Body, Cursored, CursorPage, me, page, route
from app.domain import credentials
from app.domain.credentials import LONGEST
from app.domain.errors import Invalid

ProviderName = Annotated[str, Meta(min_length=1, max_length=100, description="The provider's id or name.")]
Name = Annotated[str, Meta(min_length=1, max_length=100)]
Token = Annotated[str, Meta(min_length=1, max_length=LONGEST, description="Stored encrypted, and never shown again.")]


class Credential(msgspec.Struct, kw_only=True):
    """A credential without its token. `last_used_at` is accurate to a minute."""

    id: str
    provider_id: str
    provider: str
    name: str
    masked: str
    is_default: bool
    created_at: datetime
    last_used_at: datetime | None


class CredentialPage(CursorPage, kw_only=True):
    data: list[Credential]


class NewCredential(Body, kw_only=True):
    provider: ProviderName
    name: Name
    token: Token


class CredentialChange(Body, kw_only=True):
    """What you leave out stays unchanged. The provider stays in any case."""

    provider: ProviderName | UnsetType = UNSET
    name: Name | UnsetType = UNSET
    token: Token | UnsetType = UNSET


def show(credential: credentials.Credential) -> Credential:
    return Credential(
        id=credential.id,
        provider_id=credential.provider_id,
        provider=credential.provider.name,
        name=credential.name,
        masked=credential.hint,
        is_default=credential.is_default,
        created_at=credential.created_at,
        last_used_at=credential.last_used_at,
    )


@route("GET", "/api/tokens", query=Cursored, answer=CredentialPage)
def index(query: Cursored) -> dict[str, Any]:
    """Lists your own credentials of providers, newest first."""
    return page(credentials.of(me()), show)


@route("POST", "/api/tokens", body=NewCredential, answer=Credential, status=201, writes=True)
def create(body: NewCredential) -> Credential:
    """Stores a credential of your own. The first one for a provider is your default, which is sent with your own calls."""
    return show(credentials.create(by=me(), provider=body.provider, name=body.name, token=body.token))


@route("GET", "/api/tokens/<id>", answer=Credential)
def detail(id: str) -> Credential:
    """Returns one of your credentials, without its token."""
    return show(credentials.get_own(me(), id))


@route("PUT", "/api/tokens/<id>", body=CredentialChange, answer=Credential, writes=True)
def change(id: str, body: CredentialChange) -> Credential:
    """Changes the name or the token."""
    credential = credentials.get_own(me(), id)
    if body.provider is not UNSET and body.provider not in (credential.provider_id, credential.provider.name):
        raise Invalid("A credential stays with its provider. Create another one.", "provider")
    name = None if body.name is UNSET else body.name
    token = None if body.token is UNSET else body.token
    return show(credentials.update(credential, by=me(), name=name, token=token))


@route("DELETE", "/api/tokens/<id>", status=204, writes=True)
def delete(id: str) -> None:
    """Deletes a credential. The oldest one left for its provider becomes the default."""
    credentials.delete(credentials.get_own(me(), id), by=me())


@route("PUT", "/api/tokens/<id>/default", answer=Credential, writes=True)
def make_default(id: str) -> Credential:
    """Makes a credential the one that is sent with your own calls."""
    return show(credentials.make_default(credentials.get_own(me(), id), by=me()))
