"""Many keys or models, put into a running Portico's database by the domain's own verbs.

Run in that Portico's environment and with its settings: `python -m bench.gateway.seed keys|models COUNT MODEL [FILE]`.
Each key has a budget and rates of its own; its team has both too and a subscription with a budget, its maker a cap in the
team: a call's chain is as long as any other's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from app import create_app
from app.domain import budgets, catalog, identity, keys, subscriptions, teams
from app.domain.catalog import DeploymentSpec, Model
from app.domain.person import Person
from app.extensions import db, transaction
from bench.gateway.limits import BUDGET, PRICE, RATES
from config import load

KEYS_A_PERSON = 200
MODELS_AT_ONCE = 1000


def admin_of(username: str) -> Person:
    found = identity.find(username)
    assert found is not None, f"there is no {username}"
    return found


def model_named(name: str) -> Model:
    found = catalog.find_model(name)
    assert found is not None, f"there is no model {name}"
    return found


def make_keys(admin: str, model: str, number: int, count: int) -> list[str]:
    """A team whose one member has so many keys; their texts."""
    by = admin_of(admin)
    person = identity.create(by=by, username=f"bench-{number}", password=None)
    team = teams.create(by=by, name=f"Bench {number}", rpm=RATES["rpm"], tpm=RATES["tpm"], budget=BUDGET)
    teams.put_member(team, person, by=by, budget=BUDGET)
    subscription, _ = subscriptions.request(person, model_named(model), by=person, team=team)
    db.session.flush()
    budgets.set_budget("subscription", subscription.id, by=by, **BUDGET)
    return [keys.create(person, by=person, team=team, name=f"Key {n}", budget=BUDGET, **RATES)[1] for n in range(count)]


def make_models(admin: str, like: str, begin: int, count: int) -> None:
    """So many models, served as `like` is."""
    by = admin_of(admin)
    served = [
        DeploymentSpec(provider_id=item.provider_id, upstream_model=item.upstream_model)
        for item in model_named(like).deployments
    ]
    for number in range(begin, begin + count):
        catalog.create_model(by=by, name=f"model-{number}", price=PRICE, deployments=served)


def parts(count: int, most: int) -> Iterator[tuple[int, int]]:
    """`count` in parts of at most `most`: where each begins, and its size."""
    for begin in range(0, count, most):
        yield begin, min(most, count - begin)


def main(arguments: list[str]) -> None:
    what, count, model = arguments[0], int(arguments[1]), arguments[2]
    config = load()
    app = create_app(config, ())
    admin = config.auth.admin_username
    with app.app_context():
        if what == "keys":
            texts: list[str] = []
            for begin, size in parts(count, KEYS_A_PERSON):
                texts += transaction(make_keys, admin, model, begin // KEYS_A_PERSON, size)
            file = Path(arguments[3])
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as written:
                written.write("\n".join(texts) + "\n")
        else:
            for begin, size in parts(count, MODELS_AT_ONCE):
                transaction(make_models, admin, model, begin, size)
        db.session.remove()
        db.engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1:])
