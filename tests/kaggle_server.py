"""A Kaggle of our own on 127.0.0.1, which the real client talks to as if it were the real one.

The client knows no setting for its address. `environment` sends it here all the same: in
its LOCALHOST mode it asks for http://localhost, and HTTP_PROXY makes that request come to us.
The slug of the dataset that is asked for chooses the answer.
"""

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

API = "/api/v1/datasets.DatasetApiService/DownloadDataset"
INTROSPECTION = "/api/v1/security.OAuthService/IntrospectToken"
RENEWAL = "/api/v1/users.AccountService/GenerateAccessToken"
GOOD_TOKEN = "a-good-token"  # others: "silent", "refused-401", or simply unknown


class Answer(NamedTuple):
    """What the server does when a dataset is asked for."""

    body: bytes = b""
    name: str = "Drake.csv"  # last part of the address it redirects to
    status: int = 200  # anything else: no redirect, just this status
    silent: bool = False  # accept the request and never answer
    cuts: int = 0  # so many transfers break off half-way
    stalls: bool = False  # half of the body, then nothing for ever
    sized: bool = True  # announce the length of the body


class Request(NamedTuple):
    """What the client asked for."""

    path: str
    message: dict
    authorization: str | None


class KaggleServer:
    """Serves `answers` (by dataset slug) between entering and leaving the context."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers = answers
        self.requests: list[Request] = []
        self.cuts = {slug: answer.cuts for slug, answer in answers.items()}
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "KaggleServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def asked(self, slug: str) -> list[Request]:
        """Every request for the download of one dataset."""
        return [r for r in self.requests if r.message.get("datasetSlug") == slug]

    def _handler(self) -> type["_Handler"]:
        return type("Handler", (_Handler,), {"kaggle": self})


def environment(address: str, home: str, token: str | None = None) -> dict[str, str]:
    """Variables that lead the real client to `address`, with no credentials but `token`."""
    variables = {
        "HOME": home,
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "HTTP_PROXY": address,
        "http_proxy": address,
        "NO_PROXY": "",
        "no_proxy": "",
    }
    return variables | ({"KAGGLE_API_TOKEN": token} if token else {})


class _Handler(BaseHTTPRequestHandler):
    kaggle: KaggleServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = urlsplit(self.path).path  # as a proxy we are sent whole addresses
        self.kaggle.requests.append(Request(path, message, self.headers["Authorization"]))
        if path == INTROSPECTION:
            self.introspect(message["token"])
        elif path == API:
            self.redirect(message["datasetSlug"])
        elif path == RENEWAL:
            self.reply(int(message["refreshToken"].removeprefix("refused-")))
        else:
            self.reply(501)

    def introspect(self, token: str) -> None:
        if token == "silent":
            self.wait()
        elif token.startswith("refused-"):
            self.reply(int(token.removeprefix("refused-")))
        else:
            known = {"active": True, "username": "drake"}
            answer = known if token == GOOD_TOKEN else {"active": False}
            self.reply(200, json.dumps(answer).encode(), Content_Type="application/json")

    def redirect(self, slug: str) -> None:
        answer = self.kaggle.answers.get(slug, Answer(status=404))
        if answer.silent:
            self.wait()
        elif answer.status != 200:
            self.reply(answer.status)
        else:
            self.reply(302, Location=f"{self.kaggle.address}/storage/{slug}/{answer.name}?sig=1")

    def do_GET(self) -> None:
        slug = urlsplit(self.path).path.split("/")[2]
        answer = self.kaggle.answers[slug]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        body, sent = answer.body[start:], len(answer.body[start:])
        if answer.stalls or self.kaggle.cuts[slug] > 0:
            self.kaggle.cuts[slug] -= 1
            sent //= 2
        self.send_response(206 if start else 200)
        if answer.sized:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.close_connection = True
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Tue, 01 Jul 2025 10:00:00 GMT")
        self.send_header("Connection", "close")
        self.end_headers()
        with suppress(ConnectionError):  # a client that has had enough hangs up
            self.wfile.write(body[:sent])
        if answer.stalls:
            self.wait()
        self.close_connection = True

    def wait(self) -> None:
        """Say nothing until the server is closed."""
        self.kaggle.closing.wait()
        self.close_connection = True

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
