"""A Hub on loopback, for the real huggingface_hub: repos, branches, tags and commits in memory; it
fails on demand.

with HubServer() as server:
    server.commit("ada/digits", {"config.json": b"{}"})
    server.fail("POST", "/commit/", status=500)       # the next such request, once
server.asked                                           # every request, as "GET /path"
"""

import base64
import hashlib
import itertools
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from huggingface_hub.utils.sha import git_hash

TOKEN, READ_TOKEN = "hf_writer" + 26 * "w", "hf_reader" + 26 * "r"
OWNER = "ada"


class HubServer:
    """Start it with `with`. `lfs` says which files the client must upload apart from the commit."""

    def __init__(self, lfs=(".safetensors", ".gif", ".png")):
        # name -> {"commits", "branches", "tags", "private"}; sha256 -> bytes
        self.repos, self.lfs, self.objects = ({}, lfs, {})
        self.asked, self.failures, self.uploaded = [], [], []
        self.lock, self.count = threading.RLock(), itertools.count()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.http.daemon_threads, self.http.hub = True, self
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self):
        threading.Thread(
            target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()

    def fail(self, method, part, times=1, **how):
        """The next requests of this kind fail: status=, headers=, cut=True (in the middle of the
        body), slow=seconds."""
        self.failures.append({"method": method, "part": part, "times": times, **how})

    def create(self, name, private=False):
        first = self._oid()
        self.repos[name] = {
            "commits": {first: {".gitattributes": b"*.safetensors lfs\n"}},
            "branches": {"main": first},
            "tags": {},
            "private": private,
            "log": [first],
        }

    def commit(self, name, files, branch="main"):
        """Adds files on top of a branch, as one commit. Returns its id."""
        with self.lock:
            if name not in self.repos:
                self.create(name)
            repo, oid = self.repos[name], self._oid()
            repo["commits"][oid] = repo["commits"][repo["branches"][branch]] | files
            repo["branches"][branch] = oid
            repo["log"].append(oid)
            return oid

    def files(self, name, revision="main"):
        """The files at a revision; None if there is none."""
        repo = self.repos[name]
        oid = repo["branches"].get(revision) or repo["tags"].get(revision) or revision
        return repo["commits"].get(oid)

    def commits(self, name):
        """How many commits were made since the repo's first."""
        return len(self.repos[name]["log"]) - 1

    def _oid(self):
        return hashlib.sha1(str(next(self.count)).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._serve()

    do_GET = do_POST = do_PUT = do_HEAD

    def _serve(self):
        hub = self.server.hub
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.cut = False
        hub.asked.append(f"{self.command} {self.path}")
        for failure in hub.failures:
            if (
                failure["times"]
                and failure["method"] == self.command
                and failure["part"] in self.path
            ):
                failure["times"] -= 1
                # time.sleep is replaced in the tests
                threading.Event().wait(failure.get("slow", 0))
                if "status" in failure:
                    return self._say(
                        failure["status"], {"error": "on demand"}, failure.get("headers", {})
                    )
                if failure.get("drop"):
                    self.close_connection = True
                    return self.connection.close()
                self.cut = failure.get("cut", False)
        path = urlsplit(self.path).path
        with hub.lock:
            for pattern, answer in ROUTES:
                if found := re.fullmatch(pattern, path):
                    return answer(self, hub, *map(unquote, found.groups()))
        return self._say(404, {"error": f"the stand-in knows no {path}"})

    def _say(self, status, value=None, headers=(), body=None):
        content = json.dumps(value).encode() if body is None else body
        self.send_response(status)
        for name, text in dict(headers).items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if self.cut else content)
        if self.cut:
            self.close_connection = True
        return True

    def _error(self, status, code):
        return self._say(status, {"error": code}, {"X-Error-Code": code, "X-Error-Message": code})

    def _may_write(self, name):
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in (TOKEN, READ_TOKEN):
            self._say(
                401,
                {"error": "Invalid credentials in Authorization header"},
                {"X-Error-Message": "Invalid credentials in Authorization header"},
            )
            return False
        if token == READ_TOKEN or not name.startswith(f"{OWNER}/"):
            self._say(
                403,
                {"error": "Forbidden"},
                {"X-Error-Message": f"You don't have the rights to write to {name}"},
            )
            return False
        return True

    def create_repo(self, hub):
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        if not self._may_write(name):
            return None
        if name in hub.repos:
            return self._say(409, {"error": "exists", "url": f"{hub.url}/{name}"})
        hub.create(name, asked.get("visibility") == "private")
        return self._say(200, {"url": f"{hub.url}/{name}"})

    def validate(self, hub):
        return self._say(200, {"errors": [], "warnings": []})

    def _find(self, hub, name, revision):
        """The files there, or None after the right error."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if name not in hub.repos or (hub.repos[name]["private"] and token != TOKEN):
            return self._error(404 if token else 401, "RepoNotFound") and None
        files = hub.files(name, revision)
        return files if files is not None else (self._error(404, "RevisionNotFound") and None)

    def _commit_of(self, hub, name, revision):
        repo = hub.repos[name]
        return repo["branches"].get(revision) or repo["tags"].get(revision) or revision

    def info(self, hub, name, revision="main"):
        files = self._find(hub, name, revision)
        if files is None:
            return None
        siblings = []
        for path, content in files.items():
            lfs = {
                "sha256": hashlib.sha256(content).hexdigest(),
                "size": len(content),
                "pointerSize": 134,
            }
            siblings.append(
                {"rfilename": path, "size": len(content), "blobId": git_hash(content)}
                | ({"lfs": lfs} if path.endswith(hub.lfs) else {})
            )
        return self._say(
            200,
            {
                "id": name,
                "sha": self._commit_of(hub, name, revision),
                "siblings": siblings,
                "private": hub.repos[name]["private"],
                "tags": [],
            },
        )

    def tree(self, hub, name, revision):
        files = self._find(hub, name, revision)
        return (
            None
            if files is None
            else self._say(
                200,
                [
                    {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
                    for path, content in files.items()
                ],
            )
        )

    def refs(self, hub, name):
        repo = hub.repos[name]
        return self._say(
            200, {"branches": _refs(repo["branches"]), "tags": _refs(repo["tags"]), "converts": []}
        )

    def branch(self, hub, name, branch):
        repo = hub.repos[name]
        if not self._may_write(name):
            return None
        if branch in repo["branches"]:
            return self._say(409, {"error": "exists"})
        repo["branches"][branch] = repo["branches"]["main"]
        return self._say(200, {})

    def tag(self, hub, name, revision):
        if not self._may_write(name):
            return None
        hub.repos[name]["tags"][json.loads(self.body)["tag"]] = self._commit_of(hub, name, revision)
        return self._say(200, {})

    def preupload(self, hub, name, revision):
        if not self._may_write(name):
            return None
        return self._say(
            200,
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(hub.lfs) else "regular",
                        "shouldIgnore": False,
                        "oid": None,
                    }
                    for file in json.loads(self.body)["files"]
                ]
            },
        )

    def batch(self, hub, name):
        objects = []
        for thing in json.loads(self.body)["objects"]:
            need = {"upload": {"href": f"{hub.url}/objects/{thing['oid']}", "header": {}}}
            objects.append(thing | ({} if thing["oid"] in hub.objects else {"actions": need}))
        return self._say(200, {"transfer": "basic", "objects": objects})

    def put(self, hub, oid):
        assert hashlib.sha256(self.body).hexdigest() == oid
        hub.objects[oid] = self.body
        hub.uploaded.append(oid)
        return self._say(200, {})

    def commit(self, hub, name, branch):
        if not self._may_write(name):
            return None
        files, gone = {}, []
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit") not in (
                None,
                hub.repos[name]["branches"][branch],
            ):
                return self._say(412, {"error": "A commit has happened since"})
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                files[value["path"]] = hub.objects[value["oid"]]
            if line["key"] == "deletedFile":
                gone.append(value["path"])
        oid = hub.commit(name, files, branch)
        for path in gone:
            del hub.repos[name]["commits"][oid][path]
        return self._say(200, {"commitUrl": f"{hub.url}/{name}/commit/{oid}", "commitOid": oid})

    def resolve(self, hub, name, revision, path):
        files = self._find(hub, name, revision)
        if files is None:
            return None
        commit = self._commit_of(hub, name, revision)
        if path not in files:
            return self._say(404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        content = files[path]
        etag = hashlib.sha256(content).hexdigest()
        start = int(re.sub(r"\D", "", self.headers.get("Range", "").split("-")[0]) or 0)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self._say(206 if start else 200, headers=headers, body=content[start:])


def _refs(table):
    return [
        {"name": name, "ref": f"refs/{name}", "targetCommit": oid} for name, oid in table.items()
    ]


REPO = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    (pattern, answer)
    for pattern, answer in (
        (r"/api/repos/create", _Handler.create_repo),
        (r"/api/validate-yaml", _Handler.validate),
        (rf"/api/(?:models|spaces)/{REPO}", _Handler.info),
        (rf"/api/(?:models|spaces)/{REPO}/revision/(.+)", _Handler.info),
        (rf"/api/(?:models|spaces)/{REPO}/tree/(.+)", _Handler.tree),
        (rf"/api/(?:models|spaces)/{REPO}/refs", _Handler.refs),
        (rf"/api/(?:models|spaces)/{REPO}/branch/(.+)", _Handler.branch),
        (rf"/api/(?:models|spaces)/{REPO}/tag/(.+)", _Handler.tag),
        (rf"/api/(?:models|spaces)/{REPO}/preupload/(.+)", _Handler.preupload),
        (rf"/api/(?:models|spaces)/{REPO}/commit/(.+)", _Handler.commit),
        (rf"/(?:spaces/)?{REPO}\.git/info/lfs/objects/batch", _Handler.batch),
        (r"/objects/([0-9a-f]{64})", _Handler.put),
        (rf"/(?:spaces/)?{REPO}/resolve/([^/]+)/(.+)", _Handler.resolve),
    )
]
