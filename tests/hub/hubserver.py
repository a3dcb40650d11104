"""A small Hugging Face Hub on this machine: the real client talks to it over real HTTP.

It keeps repositories as lists of commits, logs every request, and misbehaves on demand (`server.fault(...)`). A second
server (`server.cdn`) plays the storage host that large files are redirected to.
"""

import base64
import contextlib
import hashlib
import json
import re
import socket
import struct
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import torch
import yaml

LFS = (".safetensors", ".bin", ".pt", ".pkl", ".wav", ".png", ".gif", ".mp4", ".parquet")
OWNER, READER, OTHER = "hf_ownertoken0001", "hf_readertoken002", "hf_othertoken0003"
LICENCES = {"apache-2.0", "mit", "cc-by-4.0", "other"}
TASKS = {"unconditional-image-generation", "text-to-image", "robotics"}


def commit_id(*parts: object) -> str:
    return hashlib.sha1(repr(parts).encode()).hexdigest()


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def equal(a, b) -> bool:
    """Whether two models have bit-identical weights and equal recipes."""
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return a.recipe == b.recipe and all(k == m and torch.equal(x, y) for (k, x), (m, y) in pairs)


@dataclass
class Repo:
    """A repository: commits are (id, message, {path: bytes}), refs point at them."""

    owner: str
    private: bool = False
    gated: bool = False
    commits: list = field(default_factory=list)
    branches: dict = field(default_factory=dict)
    tags: dict = field(default_factory=dict)

    def commit(self, files: dict, message: str = "files", branch: str = "main") -> str:
        new = commit_id(len(self.commits), message, sorted((k, git_id(v)) for k, v in files.items()))
        self.commits.append((new, message, dict(files)))
        self.branches[branch] = new
        return new

    def find(self, revision: str):
        revision = unquote(revision)
        wanted = self.branches.get(revision) or self.tags.get(revision) or revision
        return next((c for c in self.commits if c[0] == wanted), None)

    @property
    def files(self) -> dict:
        return self.find("main")[2]


@dataclass
class Seen:
    """One request as it came."""

    method: str
    path: str
    query: str
    host: str
    authorization: str | None
    agent: str
    range: str | None
    body: bytes
    status: int = 0


@dataclass
class Fault:
    method: str
    pattern: str
    kind: str
    times: int
    status: int
    headers: dict
    body: bytes | None = None


class Server:
    """The Hub. `users` maps tokens to (name, may write)."""

    def __init__(self, host: str = "127.0.0.1", *, cdn: bool = True) -> None:
        self.reset()
        server = self

        class Handler(_Handler):
            hub = server

        class Listener(ThreadingHTTPServer):
            def handle_error(self, *args) -> None:
                if not isinstance(sys.exc_info()[1], OSError):  # a client that gives up hangs up
                    super().handle_error(*args)

        self.http = Listener((host, 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://{host}:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.cdn = Server("localhost", cdn=False) if cdn else None

    def reset(self) -> None:
        self.repos: dict = {}
        self.objects: dict = {}
        self.log: list = []
        self.faults: list = []
        self.users = {OWNER: ("me", True), READER: ("reader", False), OTHER: ("other", True)}
        self.keep: dict | None = None  # where answers are kept: {(method, path): body}
        self.redirect = False  # large files come from the other host
        self.xet = ""  # where Xet's storage is, "" without; then `objects` holds Xet's hashes, and `known` the contents
        self.known: dict = {}
        self.stop_stalling = threading.Event()
        if getattr(self, "cdn", None):
            self.cdn.reset()

    def close(self) -> None:
        self.stop_stalling.set()
        self.http.shutdown()
        self.http.server_close()
        if self.cdn:
            self.cdn.close()

    def add(self, name: str, files: dict, *, kind: str = "model", **options) -> Repo:
        repo = Repo(name.split("/")[0], **options)
        repo.commit(files)
        self.repos[kind, name] = repo
        return repo

    def fault(self, pattern: str, kind: str, *, method: str = "GET", times: int = 1, status: int = 500,
              body: bytes | None = None, **headers) -> None:  # fmt: skip
        """The next `times` requests whose path holds the pattern go wrong.

        kind: "status" answers with that status; "truncate", "reset" and "stall" stop in mid-body; "corrupt" changes one
        byte; "lost" does what was asked and hangs up; "drop" hangs up at once; "silent" never answers; "drip" sends one
        byte after the other, slowly, from the first header on, "drip-body" from the first byte of the body on; "endless"
        has a body without end; "circle" sends on to itself; "answer" is the right answer with these headers (None: without
        it), and with `body` in place of its own.
        """
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        self.faults.append(Fault(method, pattern, kind, times, status, named, body))

    def paths(self, method: str | None = None) -> list:
        return [s.path for s in self.log if method in (None, s.method)]


class _Handler(BaseHTTPRequestHandler):
    hub: Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def log_message(self, *args) -> None:
        pass

    # ------------------------------------------------------------ answers

    def answer(self, status: int, body=b"", headers: dict | None = None) -> None:
        if not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json"} | (headers or {})
        headers = {k.lower(): v for k, v in (headers or {}).items()}
        if self.hub.keep is not None and self.hub.cdn:
            self.hub.keep[self.command, self.route] = body
        kind = self.broken.kind if self.broken else ""
        self.seen.status = status
        if kind == "lost":
            return self.hang_up()
        if kind == "answer":
            body = body if self.broken.body is None else self.broken.body
            if self.broken.body is not None:
                headers.pop("content-length", None)
            headers |= {k.lower(): v for k, v in self.broken.headers.items()}
            headers = {k: v for k, v in headers.items() if v is not None}
        if kind == "endless":
            headers.pop("content-length", None)
            headers["transfer-encoding"] = "chunked"
        if kind == "corrupt" and body:
            body = bytes([body[0] ^ 1]) + body[1:] if len(body) < 9000 else body[:9000] + bytes([body[9000] ^ 1]) + body[9001:]
        self.send_response(status)
        if "transfer-encoding" not in headers:
            headers.setdefault("content-length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        if kind == "drip":
            return self.drip(b"".join(self._headers_buffer) + b"\r\n" + body)
        self.end_headers()
        if self.command == "HEAD":
            return None
        if kind == "drip-body":
            return self.drip(body)
        if kind == "endless":
            with contextlib.suppress(OSError):
                while not self.hub.stop_stalling.is_set():
                    self.wfile.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
            return self.hang_up()
        if kind in ("truncate", "reset", "stall"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if kind == "stall":
                self.hub.stop_stalling.wait(30)
            return self.hang_up(reset=kind == "reset")
        self.wfile.write(body)
        return None

    def drip(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            for i in range(len(data)):
                self.wfile.write(data[i : i + 1])
                self.wfile.flush()
                if self.hub.stop_stalling.wait(0.04):
                    break
        self.hang_up()

    def hang_up(self, *, reset: bool = False) -> None:
        with contextlib.suppress(OSError):
            self.wfile.flush()
        if reset:  # a TCP reset instead of an orderly end
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            with contextlib.suppress(OSError):  # the client was quicker
                self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()
        self.close_connection = True

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # we hung up
            super().finish()

    def error(self, status: int, code: str = "", message: str = "") -> None:
        headers = {"X-Error-Message": message or code}
        if code:
            headers["X-Error-Code"] = code
        self.answer(status, {"error": message or code}, headers)

    # ------------------------------------------------------------ routes

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        self.route, self.query = url.path, parse_qs(url.query)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            body = b""
            while size := int(self.rfile.readline().strip(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.body = body
        get = self.headers.get
        self.seen = Seen(self.command, self.route, url.query, get("Host", ""), get("Authorization"), get("User-Agent", ""),
                         get("Range"), body)  # fmt: skip
        self.hub.log.append(self.seen)
        self.broken = None
        for fault in self.hub.faults:
            if fault.times and fault.method == self.command and re.search(fault.pattern, self.route):
                fault.times -= 1
                self.broken = fault
                break
        if self.broken and self.broken.kind == "drop":
            return self.hang_up()
        if self.broken and self.broken.kind == "silent":
            self.hub.stop_stalling.wait(30)
            return self.hang_up()
        if self.broken and self.broken.kind == "circle":
            return self.answer(302, b"", {"Location": self.path})
        if self.broken and self.broken.kind == "status":
            status, headers = self.broken.status, self.broken.headers
            return self.answer(status, {"error": f"a fault with {self.headers.get('Authorization')}"}, headers)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.user, self.may_write = self.hub.users.get(token, (None, False))
        if token and self.user is None:
            return self.error(401, message="Invalid credentials in Authorization header")
        for method, pattern, name in ROUTES:
            found = re.fullmatch(pattern, self.route)
            if found and method == self.command:
                return getattr(self, name)(**found.groupdict())
        return self.error(404, message=f"no such page: {self.route}")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

    def repo(self, kind: str, name: str, *, content: bool = False, write: bool = False):
        """The repository if this user may use it so; else the answer is sent and it is None."""
        found = self.hub.repos.get((kind.rstrip("s"), name))
        if found is None or (found.private and self.user != found.owner):
            return self.error(404 if self.user else 401, "RepoNotFound", "Repository not found")
        if content and found.gated and self.user != found.owner:
            return self.error(403 if self.user else 401, "GatedRepo", f"Access to {name} is restricted")
        if write and (self.user != found.owner or not self.may_write):
            return self.error(403, message="you have no right to write here")
        return found

    def whoami(self) -> None:
        if self.user is None:
            return self.error(401, message="Invalid credentials in Authorization header")
        return self.answer(200, {"type": "user", "name": self.user, "orgs": []})

    def create(self) -> None:
        asked = json.loads(self.body)
        if self.user is None or not self.may_write or asked.get("organization") not in (None, self.user):
            return self.error(401 if self.user is None else 403, message="you may not create this")
        name = f"{self.user}/{asked['name']}"
        if (asked.get("type", "model"), name) in self.hub.repos:
            return self.answer(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
        private = asked.get("private") or asked.get("visibility") == "private"
        first = {".gitattributes": b"*.safetensors filter=lfs\n"}
        self.hub.add(name, first, kind=asked.get("type", "model"), private=bool(private))
        return self.answer(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def delete(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or self.user}/{asked['name']}"
        if self.repo(asked.get("type", "model"), name, write=True):
            del self.hub.repos[asked.get("type", "model"), name]
            self.answer(200, {})

    def validate(self) -> None:
        text = json.loads(self.body)["content"]
        errors = []
        try:
            data = yaml.safe_load(text.split("---")[1]) if text.lstrip().startswith("---") else {}
        except yaml.YAMLError as error:
            data, errors = {}, [str(error)]
        if data.get("license", "mit") not in LICENCES:
            errors.append(f'"license" must be one of {sorted(LICENCES)}')
        if data.get("pipeline_tag", "robotics") not in TASKS:
            errors.append('"pipeline_tag" is no task')
        if not isinstance(data.get("tags", []), list):
            errors.append('"tags" must be an array')
        for model in data.get("model-index", []):
            for result in model["results"]:
                for metric in result["metrics"]:
                    if not {"type", "value"} <= metric.keys() or not {"type", "name"} <= result["dataset"].keys():
                        errors.append('"model-index" is not complete')
        status = 400 if errors else 200
        self.answer(status, {"errors": [{"message": e} for e in errors], "warnings": []})

    # ------------------------------------------------------------ reading

    def info(self, kind: str, name: str, revision: str = "main") -> None:
        repo = self.repo(kind, name)
        if repo is None:
            return None
        commit = repo.find(revision)
        if commit is None:
            return self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = [self.entry(p, d) for p, d in sorted(commit[2].items())]
        siblings = []
        for f in files:
            sibling = {"rfilename": f["path"]}
            if "blobs" in self.query:
                sibling |= {"size": f["size"], "blobId": f["oid"]}
                if "lfs" in f:
                    sibling["lfs"] = {"sha256": f["lfs"]["oid"], "size": f["size"], "pointerSize": 1}
            siblings.append(sibling)
        facts = {"private": repo.private, "gated": "manual" if repo.gated else False, "disabled": False, "tags": []}
        return self.answer(200, {"id": name, "_id": "1", "sha": commit[0], "siblings": siblings, **facts})

    def auth_check(self, kind: str, name: str) -> None:
        if self.repo(kind, name, content=True):
            self.answer(200, {})

    @staticmethod
    def entry(path: str, data: bytes) -> dict:
        found = {"type": "file", "path": path, "size": len(data), "oid": git_id(data)}
        if path.endswith(LFS):
            found["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 1}
        return found

    def refs(self, kind: str, name: str) -> None:
        repo = self.repo(kind, name)
        if repo:
            as_list = lambda refs, at: [{"name": k, "ref": f"refs/{at}/{k}", "targetCommit": v} for k, v in refs.items()]  # noqa: E731
            self.answer(200, {"branches": as_list(repo.branches, "heads"), "tags": as_list(repo.tags, "tags"), "converts": []})

    def tree(self, kind: str, name: str, revision: str, folder: str = "") -> None:
        repo = self.repo(kind, name)
        if repo is None:
            return None
        commit = repo.find(revision)
        if commit is None:
            return self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        prefix = f"{unquote(folder)}/" if folder else ""
        below = {p: d for p, d in commit[2].items() if p.startswith(prefix)}
        if not below:
            return self.error(404, "EntryNotFound", f"no folder {folder}")
        found = {}
        for path, data in sorted(below.items()):
            rest = path[len(prefix) :]
            if "/" in rest:
                top = prefix + rest.split("/")[0]
                found[top] = {"type": "directory", "path": top, "size": 0, "oid": commit_id(top)}
            if "/" not in rest or self.query.get("recursive", ["False"])[0].lower() in ("true", "1"):
                found[path] = self.entry(path, data)
        return self.answer(200, list(found.values()))

    def paths_info(self, kind: str, name: str, revision: str) -> None:
        repo = self.repo(kind, name)
        if repo is None:
            return None
        commit = repo.find(revision)
        if commit is None:
            return self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        asked = json.loads(self.body)["paths"] if self.body[:1] == b"{" else parse_qs(self.body.decode())["paths"]
        found = []
        for path in [asked] if isinstance(asked, str) else asked:
            if path in commit[2]:
                found.append(self.entry(path, commit[2][path]))
            elif any(p.startswith(f"{path}/") for p in commit[2]):
                found.append({"type": "directory", "path": path, "size": 0, "oid": commit_id(path)})
        return self.answer(200, found)

    def resolve(self, name: str, revision: str, path: str, kind: str = "model") -> None:
        repo = self.repo(kind or "model", name, content=True)
        if repo is None:
            return None
        commit = repo.find(revision)
        if commit is None:
            return self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        data = commit[2].get(unquote(path))
        headers = {"X-Repo-Commit": commit[0], "Accept-Ranges": "bytes"}
        if data is None:
            return self.answer(404, {"error": "Entry not found"}, headers | {"X-Error-Code": "EntryNotFound"})
        digest = hashlib.sha256(data).hexdigest()
        if not path.endswith(LFS):
            return self.content(data, headers | {"ETag": f'"{git_id(data)}"'})
        headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data)), "ETag": f'"{digest}"'}
        if self.hub.xet and digest in self.hub.objects:
            headers |= {
                "X-Xet-Hash": self.hub.objects[digest],
                "X-Xet-Refresh-Route": f"{self.hub.url}/api/models/{name}/xet-read-token/{commit[0]}",
            }
        if self.hub.redirect:
            self.hub.cdn.objects[digest] = data
            return self.answer(302, b"", headers | {"Location": f"{self.hub.cdn.url}/cdn/{digest}"})
        return self.content(data, headers)

    def content(self, data: bytes, headers: dict) -> None:
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, stop = int(found[1]), int(found[2] or len(data) - 1)
            headers |= {"Content-Range": f"bytes {start}-{stop}/{len(data)}"}
            return self.answer(206, data[start : stop + 1], headers)
        headers["Content-Length"] = str(len(data))
        return self.answer(200, data, headers)

    def from_cdn(self, digest: str) -> None:
        self.content(self.hub.objects[digest], {"ETag": f'"{digest}"'})

    # ------------------------------------------------------------ writing

    def preupload(self, kind: str, name: str, revision: str) -> None:
        repo = self.repo(kind, name, write=True)
        if repo is None:
            return None
        commit = repo.find(revision)
        files = []
        for asked in json.loads(self.body)["files"]:
            path, there = asked["path"], commit[2].get(asked["path"])
            mode = "lfs" if path.endswith(LFS) else "regular"
            oid = None if there is None else hashlib.sha256(there).hexdigest() if mode == "lfs" else git_id(there)
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return self.answer(200, {"files": files})

    def lfs_batch(self, name: str) -> None:
        if self.repo("model", name, write=True) is None:
            return
        objects = []
        for asked in json.loads(self.body)["objects"]:
            found = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.objects:
                found["actions"] = {"upload": {"href": f"{self.hub.cdn.url}/lfs/{asked['oid']}", "header": {}}}
            objects.append(found)
        self.answer(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, digest: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != digest:
            return self.error(400, message="the content has another hash")
        self.hub.objects[digest] = self.body
        return self.answer(200)

    def do_commit(self, kind: str, name: str, revision: str) -> None:
        repo = self.repo(kind, name, write=True)
        if repo is None:
            return None
        lines = [json.loads(line) for line in self.body.splitlines()]
        head, files = lines[0]["value"], dict(repo.find(revision)[2])
        if head.get("parentCommit", repo.branches[revision]) != repo.branches[revision]:
            return self.error(412, message="A commit has happened since. Please refresh and try again.")
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                stored = self.hub.known.get(value["oid"]) if self.hub.xet else self.hub.cdn.objects.get(value["oid"])
                if stored is None:
                    return self.error(400, message=f"no LFS object {value['oid']}")
                files[value["path"]] = stored
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        new = repo.commit(files, head["summary"], revision)
        return self.answer(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{new}", "commitOid": new, "success": True})

    def tag(self, kind: str, name: str, revision: str) -> None:
        repo = self.repo(kind, name, write=True)
        if repo is None:
            return None
        wanted = json.loads(self.body)["tag"]
        if wanted in repo.tags:
            return self.error(409, message="Tag reference exists already")
        if repo.find(revision) is None:
            return self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        repo.tags[wanted] = repo.find(revision)[0]
        return self.answer(200, {})

    def xet_token(self, kind: str, name: str, **_) -> None:
        if self.repo(kind, name) is None:
            return
        facts = {"casUrl": self.hub.xet, "exp": 4102444800, "accessToken": "xet"}
        headers = {"X-Xet-Cas-Url": self.hub.xet, "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": "4102444800"}
        self.answer(200, facts, headers)


_NAME, _REV = r"(?P<name>[\w.-]+/[\w.-]+)", r"(?P<revision>[^/]+)"
_API = rf"/api/(?P<kind>models|datasets|spaces)/{_NAME}"
ROUTES = [
    ("GET", "/api/whoami-v2", "whoami"),
    ("POST", "/api/repos/create", "create"),
    ("DELETE", "/api/repos/delete", "delete"),
    ("POST", "/api/validate-yaml", "validate"),
    ("GET", _API, "info"),
    ("GET", rf"{_API}/revision/{_REV}", "info"),
    ("GET", rf"{_API}/refs", "refs"),
    ("GET", rf"{_API}/auth-check", "auth_check"),
    ("GET", rf"{_API}/tree/{_REV}(?:/(?P<folder>.*))?", "tree"),
    ("POST", rf"{_API}/paths-info/{_REV}", "paths_info"),
    ("POST", rf"{_API}/preupload/{_REV}", "preupload"),
    ("POST", rf"{_API}/commit/{_REV}", "do_commit"),
    ("POST", rf"{_API}/tag/{_REV}", "tag"),
    ("GET", rf"{_API}/xet-(?:read|write)-token/{_REV}", "xet_token"),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/lfs/(?P<digest>[0-9a-f]{64})", "lfs_put"),
    ("GET", r"/cdn/(?P<digest>[0-9a-f]{64})", "from_cdn"),
    ("HEAD", rf"(?:/(?P<kind>datasets))?/{_NAME}/resolve/{_REV}/(?P<path>.+)", "resolve"),
    ("GET", rf"(?:/(?P<kind>datasets))?/{_NAME}/resolve/{_REV}/(?P<path>.+)", "resolve"),
]
