"""A small Hugging Face hub on this machine: the part of its HTTP interface by which a data set is made and pushed to.

As the hub does, it takes Parquet files through Git LFS (a batch request, an upload of the bytes, the pointer in the
commit) and texts within the commit, and refuses requests without its token.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_a-secret-token"


@dataclass
class Repository:
    """A data set of the server."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)


@dataclass
class HubServer:
    """What the server holds."""

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """A server that listens on a free port of this machine."""
    hub = HubServer()

    class Handler(_HubHandler):
        server_state = hub

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _HubHandler(BaseHTTPRequestHandler):
    server_state: HubServer

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, document: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def refused(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return False
        self.body()
        self.answer({"error": f"Invalid credentials {self.headers.get('Authorization')}"}, 401)
        return True

    def repository(self) -> tuple[str, Repository | None]:
        name = "/".join(self.path.removeprefix("/api").removeprefix("/datasets/").split("/")[:2])
        return name, self.server_state.repositories.get(name.removesuffix(".git"))

    def do_GET(self) -> None:
        if self.refused():
            return
        name, found = self.repository()
        if found is None:
            self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return
        siblings = [{"rfilename": path} for path in found.files]
        self.answer({"id": name, "private": found.private, "tags": found.tags, "siblings": siblings, "sha": "0" * 40})

    def do_PUT(self) -> None:
        content = self.body()
        self.server_state.objects[hashlib.sha256(content).hexdigest()] = content
        self.answer({})

    def do_POST(self) -> None:
        if self.refused():
            return
        content = self.body()
        if self.path == "/api/repos/create":
            wanted = json.loads(content)
            name = f"{wanted['organization']}/{wanted['name']}"
            assert wanted["type"] == "dataset"
            self.server_state.repositories[name] = Repository(private=wanted["visibility"] == "private")
            self.answer({"url": f"{self.server_state.endpoint}/datasets/{name}"})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            modes = {
                file["path"]: "lfs" if file["path"].endswith(".parquet") else "regular"
                for file in json.loads(content)["files"]
            }
            self.answer(
                {
                    "files": [
                        {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None}
                        for path, mode in modes.items()
                    ]
                }
            )
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {
                    "oid": entry["oid"],
                    "size": entry["size"],
                    "actions": {"upload": {"href": f"{self.server_state.endpoint}/upload/{entry['oid']}"}},
                }
                for entry in json.loads(content)["objects"]
            ]
            self.answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path:
            self.commit([json.loads(line) for line in content.splitlines()])
        else:
            self.answer({"error": f"no such address: {self.path}"}, 404)

    def commit(self, lines: list[dict[str, Any]]) -> None:
        name, found = self.repository()
        assert found is not None
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                found.commits.append(value["summary"])
            elif line["key"] == "file":
                found.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                found.files[value["path"]] = self.server_state.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del found.files[value["path"]]
        if b"\n- siftune\n" in found.files.get("README.md", b""):
            found.tags = ["siftune"]
        address = f"{self.server_state.endpoint}/datasets/{name}/commit/{'1' * 40}"
        self.answer({"success": True, "commitOid": "1" * 40, "commitUrl": address, "hookOutput": ""})
