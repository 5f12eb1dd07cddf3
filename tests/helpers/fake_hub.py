"""A Hugging Face hub of one process: what the client asks for when it looks up a model or pushes a folder."""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_right"
COMMIT = "0" * 40


@dataclass
class Repository:
    private: bool = False
    card: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


class FakeHub:
    """Serves on a port of its own until it is closed. `repositories`: what it holds; tests look and put into it."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        hub = self

        class Handler(_Handler):
            repositories = hub.repositories
            asked = hub.asked

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    repositories: dict[str, Repository]
    asked: list[str]

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.asked.append(f"GET {self.path}")
        path = self.path.partition("?")[0]
        if path == "/api/whoami-v2":
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self._answer(401, {"error": "Invalid username or password."})
            return self._answer(200, {"type": "user", "name": "me", "auth": {"type": "access_token"}})
        if path.startswith("/api/models/"):
            name, _, rest = path.removeprefix("/api/models/").partition("/tree/")
            name = name.partition("/revision/")[0]
            repository = self.repositories.get(name)
            if repository is None:
                return self._answer(404, {"error": "Repository not found"}, code="RepoNotFound")
            if rest:
                rows = [
                    {"type": "file", "path": name, "size": len(data), "oid": COMMIT}
                    for name, data in repository.files.items()
                ]
                return self._answer(200, rows)
            siblings = [{"rfilename": file} for file in repository.files]
            card = repository.card
            body = {
                "id": name,
                "cardData": card,
                "private": repository.private,
                "sha": COMMIT,
                "siblings": siblings,
                "tags": [],
            }
            return self._answer(200, body)
        return self._answer(404, {"error": "not found"})

    def do_POST(self) -> None:
        self.asked.append(f"POST {self.path}")
        data = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.partition("?")[0]
        if path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            asked = json.loads(data)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if name in self.repositories:
                return self._answer(409, {"error": "You already created this model repo", "url": self._url(name)})
            private = bool(asked.get("private")) or asked.get("visibility") == "private"
            self.repositories[name] = Repository(private)
            return self._answer(200, {"url": self._url(name), "name": name, "id": name})
        name, _, rest = path.removeprefix("/api/models/").partition("/preupload/")
        if rest:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(data)["files"]
            ]
            return self._answer(200, {"files": files})
        name = path.removeprefix("/api/models/").partition("/commit/")[0]
        repository = self.repositories[name]
        for line in data.splitlines():
            item = json.loads(line)
            if item["key"] == "header":
                repository.messages.append(item["value"]["summary"])
            else:
                repository.files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
        return self._answer(
            200, {"success": True, "commitOid": COMMIT, "commitUrl": f"{self._url(name)}/commit/{COMMIT}"}
        )

    def _answer(self, status: int, body: Any, *, code: str = "") -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        self.wfile.write(data)

    def _url(self, name: str) -> str:
        return f"http://{self.headers['Host']}/{name}"
