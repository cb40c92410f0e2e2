"""The encryption key: how old it is, how many secrets each key has sealed, and a rotation that the page follows."""

from __future__ import annotations

from flask import Blueprint, Response, url_for

from app import current
from app.blueprints.admin.person import me
from app.domain import encryption_keys
from app.domain.errors import DomainError
from app.extensions import transaction
from app.web.render import render, see_other, toast_next
from app.workflows import key_rotation

bp = Blueprint("encryption", __name__)


@bp.get("/admin/encryption")
def index() -> Response:
    return render(
        "admin/encryption/index.html",
        "admin/encryption/_keys.html",
        keys=encryption_keys.every(),
        rotation=encryption_keys.latest(),
        source=encryption_keys.source(),
        days=current.config().security.encryption_key_days,
    )


@bp.post("/admin/encryption/rotation")
def rotate() -> Response:
    try:
        transaction(key_rotation.start, by=me())
    except DomainError as error:
        toast_next("warning", error.message)
    else:
        toast_next("success", "The rotation runs. Secrets can be read all the while.")
    return see_other(url_for("admin.encryption.index"))
