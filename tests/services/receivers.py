"""Who gets what Portico sends: a mail server and a webhook's receiver, both real sockets, that behave as they are told."""

from __future__ import annotations

import email
import socketserver
import threading
import time
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class MailServer:
    """Speaks as much SMTP as smtplib does. `refusals` maps a command to the line it is answered with; `silent` says
    nothing at all."""

    messages: list[Message] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    signed_in: list[str] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    silent: bool = False

    def __post_init__(self) -> None:
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                outer._serve(self)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, session: socketserver.StreamRequestHandler) -> None:
        def say(line: str) -> None:
            session.wfile.write(f"{line}\r\n".encode())

        if self.silent:
            session.rfile.readline()
            return
        say("220 ready")
        while line := session.rfile.readline().decode("latin-1").strip():
            word = line.split(" ")[0].split(":")[0].upper()
            if word == "RCPT":
                self.recipients.append(line.partition("<")[2].partition(">")[0])
            if word in self.refusals:
                say(self.refusals[word])
            elif word == "EHLO":
                say("250-here")
                say("250 AUTH PLAIN")
            elif word == "AUTH":
                self.signed_in.append(line.split(" ")[-1])
                say("235 welcome")
            elif word == "DATA":
                say("354 go on")
                body = b""
                while (piece := session.rfile.readline()) not in (b".\r\n", b""):
                    body += piece
                self.messages.append(email.message_from_bytes(body))
                say("250 taken")
            elif word == "QUIT":
                say("221 bye")
                return
            else:
                say("250 fine")


@dataclass
class Receiver:
    """A webhook's receiver: keeps each call, and answers with `status` after `delay_s`."""

    status: int = 204
    delay_s: float = 0.0
    location: str | None = None
    calls: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.calls.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                time.sleep(outer.delay_s)
                self.send_response(outer.status)
                if outer.location:
                    self.send_header("Location", outer.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook/of-a-secret-path"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
