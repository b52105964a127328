"""As much of a Kubernetes API server as the mesh asks: objects with versions, token reviews.

What is asked of it is checked here: who asks (bearer token), with which verb, path and body. A request that
the real one would refuse is refused, and everything asked is remembered.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

BEARER = "the-caller's-own-token"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
HOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"

#: A webhook as it is before anybody trusts it.
WEBHOOKS: list[Any] = [
    {
        "name": "pods.sealmesh.dev",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": {"service": {"name": "sealmesh-injector", "namespace": "mesh", "path": "/inject"}},
    }
]


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class FakeApi:
    """The server; ``objects`` by path, ``tokens`` by text with the status of their review."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.broken = False
        self._version = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def put(self, path: str, **body: Any) -> dict[str, Any]:
        """Have an object there, as if somebody else had made it."""
        self._version += 1
        name = path.rpartition("/")[2]
        metadata = {**body.pop("metadata", {}), "name": name, "resourceVersion": str(self._version)}
        self.objects[path] = {**body, "metadata": metadata}
        return self.objects[path]

    def namespace(self, name: str, *, inject: bool = True, phase: str = "Active") -> None:
        """Have a namespace."""
        labels = {"sealmesh.dev/inject": "enabled"} if inject else {}
        self.put(f"/api/v1/namespaces/{name}", metadata={"labels": labels}, status={"phase": phase})

    def verbs(self) -> list[tuple[str, str]]:
        """Give what changed something: method and path."""
        return [(method, path) for method, path, _ in self.asked if method != "GET"]

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig that leads here."""
        path.write_text(json.dumps(self.config()))
        return path

    def config(self) -> dict[str, Any]:
        """Give a kubeconfig that leads here."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": self.url}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": "x"}}],
            "users": [{"name": "it", "user": {"token": BEARER}}],
        }

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> Any:
        """Answer one request, or raise ``Refused``."""
        url = urlsplit(target)
        found = json.loads(body) if body else None
        with self._lock:
            self.asked.append((method, url.path, deepcopy(found)))
            if self.broken:
                raise Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "etcd is away")
            if headers.get("Authorization") != f"Bearer {BEARER}":
                raise Refused(HTTPStatus.UNAUTHORIZED, "Unauthorized")
            return self._done(method, url.path, parse_qs(url.query), headers, found)

    def _done(self, method: str, path: str, query: dict[str, list[str]], headers: Any, body: Any) -> Any:
        if method == "POST":
            return self._review(body) if path == REVIEWS else self._create(path, body)
        if method == "GET" and path == "/api/v1/namespaces":
            return {"items": list(self._labelled(query["labelSelector"][0])), "metadata": {}}
        if path not in self.objects:
            raise Refused(HTTPStatus.NOT_FOUND, f"{path} not found")
        if method == "PUT":
            given = body["metadata"].get("resourceVersion")
            if given not in (None, self.objects[path]["metadata"]["resourceVersion"]):
                raise Refused(HTTPStatus.CONFLICT, "the object has been modified")
            if self.objects[path].get("immutable"):
                raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "field is immutable when `immutable` is set")
            return self.put(path, **body)
        if method == "PATCH":
            assert headers["Content-Type"] == "application/json-patch+json"
            return self._patch(path, body)
        return self.objects[path]

    def _labelled(self, selector: str) -> Iterator[dict[str, Any]]:
        key, _, value = selector.partition("=")
        for path, one in self.objects.items():
            is_one = path.startswith("/api/v1/namespaces/") and path.count("/") == 4
            if is_one and one["metadata"].get("labels", {}).get(key) == value:
                yield one

    def _create(self, path: str, body: Any) -> Any:
        full = f"{path}/{body['metadata']['name']}"
        if full in self.objects:
            raise Refused(HTTPStatus.CONFLICT, f"{full} already exists")
        return self.put(full, **body)

    def _patch(self, path: str, operations: Any) -> Any:
        changed = deepcopy(self.objects[path])
        for one in operations:
            assert one["op"] == "add"
            *way, last = one["path"].split("/")[1:]
            holder: Any = changed
            for key in way:
                holder = holder[int(key)] if isinstance(holder, list) else holder[key]
            holder[last] = one["value"]
        return self.put(path, **changed)

    def _review(self, body: Any) -> Any:
        assert body["apiVersion"], body["kind"] == ("authentication.k8s.io/v1", "TokenReview")
        spec = body["spec"]
        status = self.tokens.get(spec["token"], {"authenticated": False, "error": "[invalid bearer token]"})
        return {**body, "status": status}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                try:
                    code, said = 200, api.answer(self.command, self.path, self.headers, body)
                except Refused as refused:
                    code = refused.code
                    said = {"kind": "Status", "code": code, "message": str(refused), "reason": "x"}
                text = json.dumps(said).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_PATCH = answer  # noqa: N815  http.server's own

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        return Handler

    def serve(self) -> None:
        """Serve until closed."""
        self._server.serve_forever(0.02)

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def fake_api() -> Iterator[FakeApi]:
    """Run one for the length of the block."""
    api = FakeApi()
    thread = threading.Thread(target=api.serve)
    thread.start()
    try:
        yield api
    finally:
        api.close()
        thread.join()
