"""Serves app/static. The hash of a file is part of its URL, so browsers can cache it for a year and never use an old
one.

Vendored files are compressed ahead of time. Portico's own small files are compressed once in memory, so an edited
stylesheet is never answered with the compressed bytes of its previous version.
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
from app.web.request_cache import cached

FOLDER = Path(__file__).resolve().parent.parent / "static"
COMPRESSIBLE = {".css", ".js", ".svg", ".json", ".txt", ".md"}
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
    """Returns the asset `name` below app/static, or None if there is none. Folders, hidden files and paths that leave
    the folder count as none.

    `logo` and `logo_dark` are the logos that the deployment configures.
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
def _compressed(path: Path, changed_ns: int) -> bytes:
    return gzip.compress(path.read_bytes(), 9, mtime=0)


def body_of(asset: Asset, accepted: frozenset[str]) -> tuple[bytes, str | None]:
    """Returns the bytes to send and their Content-Encoding: br if accepted, else gzip, else the file as it is."""
    if asset.path.suffix in COMPRESSIBLE:
        for encoding, ending in (("br", ".br"), ("gzip", ".gz")):
            twin = asset.path.with_name(asset.path.name + ending)
            if encoding in accepted and twin.is_file():
                return twin.read_bytes(), encoding
        if "gzip" in accepted:
            return _compressed(asset.path, asset.path.stat().st_mtime_ns), "gzip"
    return asset.path.read_bytes(), None


def address(name: str) -> str:
    """Returns the URL of an asset, for templates: `{{ asset('portico.css') }}`. Raises `LookupError` if there is no
    such file. A page asks for the same asset many times, such as for each of its icons."""
    return cached(f"asset {name}", lambda: _address(name))


def _address(name: str) -> str:
    file = find(name)
    if file is None:
        raise LookupError(f"no such file below app/static: {name}")
    path = url_for("static", filename=f"{file.digest}/{name}")
    # Browsers draw a sprite by <use> only from the page's own origin. STATIC_URL does not serve the deployment's logos.
    is_same_origin = name.endswith(".svg") or not file.path.is_relative_to(FOLDER)
    prefix = "" if is_same_origin else str(current_app.config.get("STATIC_URL") or "").rstrip("/")
    return prefix + path


def serve(filename: str) -> Response:
    """Answers a request for an asset. A URL with the current hash may be cached for a year, any other for minutes."""
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
    if asset.path.suffix in COMPRESSIBLE:
        response.vary.add("Accept-Encoding")
    # A stylesheet refers to its fonts by relative paths, so browsers request them under the stylesheet's hash. The
    # version of a font is in the name of its folder.
    lasting = digest == asset.digest or (digest and asset.path.suffix == ".woff2" and name.startswith("vendor/"))
    response.headers["Cache-Control"] = FOREVER if lasting else SHORT
    if current_app.config.get("STATIC_URL"):
        # Pages then load these files from another origin. Browsers use a font of another origin only with these headers.
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        response.headers["Access-Control-Allow-Origin"] = "*"
    response.set_etag(f"{asset.digest}-{encoding or 'plain'}")
    response.make_conditional(request)
    return response


def init_assets(app: Flask) -> None:
    """Registers the static route and the template global `asset`."""
    if "static" in app.view_functions:
        app.view_functions["static"] = serve
    else:
        app.add_url_rule("/static/<path:filename>", endpoint="static", view_func=serve)
    app.jinja_env.globals["asset"] = address
