"""Pages leave compressed: HTML is mostly markup that repeats itself.

A page bears its reader's CSRF token and may bear words of theirs beside it, which compression could betray by the
length of what it makes (BREACH). So each answer bears a file name of random length in its gzip head, as Django does
(Pinho and others, "Heal the Breach", IEEE 2022): lengths then say nothing about what was inside.
"""

from __future__ import annotations

import gzip
import io
import secrets

from flask import Flask, Response, request

LEAST = 1_000  # bytes; below, there is nothing to gain
LEVEL = 5
MOST_NOISE = 100  # bytes


def init_compression(app: Flask) -> None:
    """Compresses HTML for browsers that take it, after everything else has been said about the answer."""

    @app.after_request
    def compress(response: Response) -> Response:
        if response.mimetype != "text/html" or response.is_streamed or response.direct_passthrough:
            return response
        response.vary.add("Accept-Encoding")
        if "Content-Encoding" in response.headers or not request.accept_encodings["gzip"]:
            return response
        body = response.get_data()
        if len(body) >= LEAST:
            response.set_data(_squeezed(body))
            response.headers["Content-Encoding"] = "gzip"
        return response


def _squeezed(body: bytes) -> bytes:
    packed = io.BytesIO()
    noise = "x" * secrets.randbelow(MOST_NOISE + 1)
    with gzip.GzipFile(noise, "wb", LEVEL, packed, mtime=0) as file:
        file.write(body)
    return packed.getvalue()
