"""Names of the Hub: addresses of repositories, and which files are taken from them. Knows no client."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import HubError

PREFIX = "hub:"
#: who publishes the models of the registry; $ZOO_HUB_NAMESPACE replaces it
NAMESPACE = "diffusion-zoo"
CONFIG, WEIGHTS, GOLDEN = "config.json", "model.safetensors", "golden.safetensors"
#: the only kinds of file that are fetched, read or pushed: none of them can hold code
SUFFIXES = (".json", ".safetensors", ".md", ".png", ".wav", ".gif", ".mp4")
#: a Space, and the only files of one that are looked at: zoo pushes its app, and never runs what it finds there
SPACE = "space"
SPACE_FILES = ("README.md", "app.py", "requirements.txt")
_NAME = re.compile(r"(?:[A-Za-z0-9_][\w.-]*/)*[A-Za-z0-9_][\w.-]*", re.ASCII)
_REPO = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_][\w.-]*(?:/[A-Za-z0-9_][\w.-]*)*", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
#: what content is known by: git's id of a small file, the SHA-256 of a large one
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def allowed(name: str) -> bool:
    """Whether a file of this name may be fetched or pushed: a plain relative path with one of `SUFFIXES`."""
    return _NAME.fullmatch(name) is not None and name.lower().endswith(SUFFIXES)


def namespace() -> str:
    """Whose repositories hold the weights of the registry's models."""
    return os.environ.get("ZOO_HUB_NAMESPACE") or NAMESPACE


@dataclass(frozen=True)
class Address:
    """A repository, and what revision of it: a branch, a tag or a commit (None: its main branch)."""

    repo: str
    revision: str | None = None
    kind: str = "model"

    @classmethod
    def parse(cls, text: str, kind: str = "model") -> Address:
        """Read "hub:owner/name" or "hub:owner/name@revision"."""
        repo, at, revision = text.removeprefix(PREFIX).partition("@")
        if not _REPO.fullmatch(repo) or "--" in repo or ".." in repo or len(repo) > 96 or repo.endswith(".git"):
            raise HubError(f"{text!r} is not a repository of the Hub. Give hub:owner/name or hub:owner/name@revision.")
        if at and (not _REVISION.fullmatch(revision) or ".." in revision):
            raise HubError(
                f"{text!r}: {revision!r} is not a revision. Give a branch, a tag or a commit of 40 digits after the @."
            )
        return cls(repo, revision or None, kind)

    @classmethod
    def of(cls, name: str) -> Address:
        """Where the weights of a registry name ("image/fashion-ddpm") are, or the address that `name` already is."""
        return cls.parse(name) if name.startswith(PREFIX) else cls.parse(f"{namespace()}/{name.replace('/', '-')}")

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which can never mean something else."""
        return self.revision is not None and COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        return f"{'' if self.kind == 'model' else f'{self.kind} '}{self.repo}@{self.revision or 'main'}"


def git_blob_id(data: bytes) -> str:
    """The id that git, and so the Hub, gives a small file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def has_hash(path: Path, digest: str) -> bool:
    """Whether a file's content has a SHA-256 (64 hex digits) or a git blob id (40)."""
    size = path.stat().st_size
    sha = hashlib.sha256() if len(digest) == 64 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest() == digest
