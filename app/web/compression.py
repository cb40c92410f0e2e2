"""Compresses pages before they are sent: most of HTML is repeated markup.

A page contains its reader's CSRF token and may contain text that an attacker chose. The length of the compressed page
could then reveal the token (BREACH). So each response carries a file name of random length in its gzip header, as
Django's do (Pinho and others, "Heal the Breach", IEEE 2022): the length no longer tells anything about the content.
"""

from __future__ import annotations

import gzip
import io
import secrets

from flask import Flask, Response, request

LEAST = 1_000  # bytes; compressing less gains nothing
LEVEL = 5
MOST_NOISE = 100  # bytes


def init_compression(app: Flask) -> None:
    """Compresses HTML for browsers that accept gzip, after all other handlers have seen the response."""

    @app.after_request
    def compress(response: Response) -> Response:
        if response.mimetype != "text/html" or response.is_streamed or response.direct_passthrough:
            return response
        response.vary.add("Accept-Encoding")
        if "Content-Encoding" in response.headers or not request.accept_encodings["gzip"]:
            return response
        body = response.get_data()
        if len(body) >= LEAST:
            response.set_data(_compressed(body))
            response.headers["Content-Encoding"] = "gzip"
        return response


def _compressed(body: bytes) -> bytes:
    compressed = io.BytesIO()
    noise = "x" * secrets.randbelow(MOST_NOISE + 1)
    with gzip.GzipFile(noise, "wb", LEVEL, compressed, mtime=0) as file:
        file.write(body)
    return compressed.getvalue()
