"""The part of the Hugging Face Hub that a push needs, on this machine: it keeps what it is sent."""

import base64
import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub:
    """What the Hub knows: each model's files by path, and which models are private; a `full` one takes no commits."""

    def __init__(self):
        self.models, self.private, self.asked, self.full = {}, set(), [], False
        self.address = ""


@contextlib.contextmanager
def serving(monkeypatch, token="hf_mine"):
    """A Hub that huggingface_hub talks to until the end, as a user with this token."""
    import huggingface_hub.constants

    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, content, code=200):
            body = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

        def handle_(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.asked.append(f"{self.command} {self.path}")
            if self.headers.get("Authorization") != f"Bearer {token}":
                return self.answer({"error": "Invalid credentials"}, 401)
            if self.path == "/api/whoami-v2":
                return self.answer({"name": "me", "type": "user", "auth": {}})
            if self.path == "/api/validate-yaml":
                return self.answer({"errors": [], "warnings": []})
            if self.path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                hub.models.setdefault(name, {})
                if asked.get("private") or asked.get("visibility") == "private":
                    hub.private.add(name)
                return self.answer({"url": f"{hub.address}/{name}"})
            name = "/".join(self.path.removeprefix("/api/models/").split("/")[:2])
            if self.path.endswith("/preupload/main"):
                files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
                return self.answer({"files": [{**file, "shouldIgnore": False, "oid": None} for file in files]})
            if "/commit/main" in self.path and not hub.full:
                for line in body.splitlines():
                    part = json.loads(line)
                    if part["key"] == "file":
                        hub.models[name][part["value"]["path"]] = base64.b64decode(part["value"]["content"])
                about = {"commitOid": "0" * 40, "commitUrl": f"{hub.address}/{name}/commit/0", "hookOutput": ""}
                return self.answer({"success": True, **about})
            if self.command == "GET":
                return self.answer({"id": name, "sha": "0" * 40, "siblings": [], "tags": []})
            return self.answer({"error": "the quota is used up"}, 403)

        do_GET = do_POST = handle_

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        hub.address = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.address)
        monkeypatch.setenv("HF_TOKEN", token)
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
