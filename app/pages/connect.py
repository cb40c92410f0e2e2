"""What the Connect page and its route of the management API share: the key and the models that a client is set up with."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy.orm import joinedload

from app.domain import keys, subscriptions
from app.domain.catalog import Model
from app.domain.keys import ApiKey
from app.domain.person import Person
from app.extensions import db
from app.pages.clients import Choice, Client, Setup


class Connection(NamedTuple):
    """A key and the models that clients are to use with it. `wanted` is the model that was asked for, and `unknown` the name of
    one that the key can't call."""

    key: ApiKey | None
    models: list[Model]  # that the key can call; without a key, the person's own keys
    wanted: Model | None = None
    small: Model | None = None
    unknown: str | None = None

    def choices(self, client: Client) -> list[Model]:
        """The models that suit a client, and the one that was asked for."""
        return [model for model in self.models if model is self.wanted or client.suits(Choice.of(model))]

    def model(self, client: Client) -> Model | None:
        """The model that was asked for, else the first that suits the client, else the first."""
        return self.wanted or next(iter([*self.choices(client), *self.models]), None)

    def setup(self, client: Client, secret: str | None = None) -> Setup:
        """What a client's block is filled with."""
        model = Choice.of(self.model(client))
        small = Choice.of(self.small) if self.small else model
        return Setup(model, small, self.key.name if self.key else None, secret)

    def is_out_of_scope(self, client: Client) -> bool:
        """Whether the key's scopes forbid what the client does with the model."""
        capability = client.capability(Choice.of(self.model(client)))
        return self.key is not None and not keys.may_use(self.key, capability)


def live_keys(person: Person) -> list[ApiKey]:
    """A person's own keys that are neither revoked nor expired, newest first."""
    return list(db.session.scalars(keys.owned_by(person).where(keys.live()).options(joinedload(ApiKey.team))))


def connection(person: Person, key: ApiKey | None, model: str | None = None, small: str | None = None) -> Connection:
    """The connection of a key, or of a person who has none yet."""
    models = keys.callable_models(key) if key else subscriptions.paid_models(person.id)
    named = {one.name: one for one in models}
    wanted = named.get(model or "")
    return Connection(key, models, wanted, named.get(small or ""), model if model and not wanted else None)
