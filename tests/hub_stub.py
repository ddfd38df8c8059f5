"""What of the Hugging Face Hub an upload of a small folder talks to, on loopback."""

import base64
import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub:
    """Repositories in memory, and all requests with their headers."""

    def __init__(self):
        self.files, self.private, self.requests = {}, {}, []
        self.status = None  # to answer everything with

    def answer(self, method, path, body):
        """(status, JSON) of a request."""
        if self.status is not None:
            return self.status, {"error": "refused by the stub"}
        if path == "/api/repos/create":
            repo = f"{body['organization']}/{body['name']}"
            if repo in self.files:
                return 409, {"error": "it is there", "url": f"{self.url}/{repo}"}
            self.files[repo], self.private[repo] = {}, body["visibility"] == "private"
            return 200, {"url": f"{self.url}/{repo}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        repo = "/".join(path.split("/")[3:5])
        if repo not in self.files:
            return 404, {"error": "not there"}
        if path.endswith("/preupload/main"):
            regular = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            return 200, {"files": [{"path": f["path"], **regular} for f in body["files"]]}
        if "/tree/main" in path:
            names = self.files[repo]
            return 200, [{"type": "file", "path": n, "size": 1, "oid": "0"} for n in names]
        if path.endswith("/commit/main"):
            self.commit(self.files[repo], body)
            return 200, {"commitUrl": f"{self.url}/{repo}/commit/1", "commitOid": "1" * 40}
        return 404, {"error": f"the stub does not know {method} {path}"}

    def commit(self, files, lines):
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
            else:
                assert line["key"] == "header"


@contextlib.contextmanager
def running():
    """A `Hub` that answers at its `url`."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self):
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.requests.append((self.command, self.path, dict(self.headers), content))
            is_lines = self.headers.get("Content-Type") == "application/x-ndjson"
            if is_lines:
                body = [json.loads(line) for line in content.splitlines()]
            else:
                body = json.loads(content) if content else None
            status, answer = hub.answer(self.command, self.path.partition("?")[0], body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = handle_one

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
