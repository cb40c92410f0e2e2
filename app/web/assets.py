"""Serves app/static: a file's hash is in its address, so browsers may keep it for a year and never see an old one.

Files Portico vendors lie there compressed beforehand; its own small ones are compressed once in memory, so that an
edited stylesheet can never be answered with the packed bytes of the one before.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from flask import Flask, Response, abort, current_app, request, url_for
from werkzeug.security import safe_join

from app import current
from app.web.request_cache import once

FOLDER = Path(__file__).resolve().parent.parent / "static"
PACKED = {".css", ".js", ".svg", ".json", ".txt", ".md"}
HASHED = re.compile(r"([0-9a-f]{8})/(.+)")
FOREVER = "public, max-age=31536000, immutable"
SHORT = "public, max-age=300"

mimetypes.add_type("font/woff2", ".woff2")
mimetypes.add_type("text/javascript", ".js")


@dataclass(frozen=True)
class Asset:
    path: Path
    digest: str
    mimetype: str


@lru_cache(maxsize=256)
def _read(path: Path, changed_ns: int) -> Asset:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return Asset(path, hashlib.sha256(path.read_bytes()).hexdigest()[:8], kind)


def find(name: str) -> Asset | None:
    """The asset of that name below app/static, or None: for folders, hidden files and ways out of the folder too.

    `logo` and `logo_dark` are the deployment's own.
    """
    if name in ("logo", "logo_dark") and (logo := current.config().logos.get(name)):
        return _read(logo, logo.stat().st_mtime_ns)
    joined = safe_join(str(FOLDER), name)
    if joined is None or any(part.startswith(".") for part in Path(name).parts):
        return None
    path = Path(joined)
    if not path.is_file():
        return None
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=32)
def _squeezed(path: Path, changed_ns: int) -> bytes:
    return gzip.compress(path.read_bytes(), 9, mtime=0)


def body_of(asset: Asset, accepted: frozenset[str]) -> tuple[bytes, str | None]:
    """The bytes to send and their Content-Encoding: br, then gzip, then as they are."""
    if asset.path.suffix in PACKED:
        for encoding, ending in (("br", ".br"), ("gzip", ".gz")):
            twin = asset.path.with_name(asset.path.name + ending)
            if encoding in accepted and twin.is_file():
                return twin.read_bytes(), encoding
        if "gzip" in accepted:
            return _squeezed(asset.path, asset.path.stat().st_mtime_ns), "gzip"
    return asset.path.read_bytes(), None


def address(name: str) -> str:
    """The address of an asset, for templates: `{{ asset('portico.css') }}`. A page has one for all its icons."""
    return once(f"asset {name}", lambda: _address(name))


def _address(name: str) -> str:
    found = find(name)
    if found is None:
        raise LookupError(f"no such file below app/static: {name}")
    path = url_for("static", filename=f"{found.digest}/{name}")
    # A sprite is only drawn by <use> when it comes from the page's own origin, and the deployment's own is nowhere else.
    is_here = name.endswith(".svg") or not found.path.is_relative_to(FOLDER)
    prefix = "" if is_here else str(current_app.config.get("STATIC_URL") or "").rstrip("/")
    return prefix + path


def serve(filename: str) -> Response:
    hashed = HASHED.fullmatch(filename)
    digest, name = hashed.groups() if hashed else ("", filename)
    asset = find(name)
    if asset is None:
        abort(404)
    accepted = frozenset(encoding for encoding in ("br", "gzip") if request.accept_encodings[encoding] > 0)
    body, encoding = body_of(asset, accepted)
    response = Response(body, mimetype=asset.mimetype)
    if encoding:
        response.headers["Content-Encoding"] = encoding
    if asset.path.suffix in PACKED:
        response.vary.add("Accept-Encoding")
    # A font is named by the stylesheet beside it, so it is asked for under the stylesheet's hash; its own folder
    # carries the version.
    lasting = digest == asset.digest or (digest and asset.path.suffix == ".woff2" and name.startswith("vendor/"))
    response.headers["Cache-Control"] = FOREVER if lasting else SHORT
    if current_app.config.get("STATIC_URL"):
        # Pages then name these files under another origin, and a font is only taken across origins when told so.
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        response.headers["Access-Control-Allow-Origin"] = "*"
    response.set_etag(f"{asset.digest}-{encoding or 'plain'}")
    response.make_conditional(request)
    return response


def init_assets(app: Flask) -> None:
    if "static" in app.view_functions:
        app.view_functions["static"] = serve
    else:
        app.add_url_rule("/static/<path:filename>", endpoint="static", view_func=serve)
    app.jinja_env.globals["asset"] = address
