"""The Hugging Face Hub: addresses, clear errors, retries, checked downloads. The only importer of huggingface_hub.

What the client leaves to its callers and is done here (measured with huggingface_hub 1.31 to 2.4): it does not notice a
changed byte, does not try again after a reset connection or a 5xx GET, mixes revisions when a branch moves between two
files, and would fetch any kind of file. It has no end to its waits and takes the server's word for names of files: see
`zoo.hub.limits`. Nothing here runs code of a repository or opens a pickle.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from zoo import __version__
from zoo.contract.formats import FORMATS
from zoo.errors import HubError, ResourceError, ZooError
from zoo.hub import limits
from zoo.hub.address import (
    COMMIT,
    CONFIG,
    GOLDEN,
    HASH,
    PREFIX,
    SPACE,
    SPACE_FILES,
    SUFFIXES,
    WEIGHTS,
    Address,
    allowed,
    has_hash,
)

ATTEMPTS, WAIT = 3, 1.0  # tries, seconds before the second

#: in the file that remembers a listing: not the name of a file of ours, so that older versions pass it over
_SIZES, _OTHERS = "sizes", "others"
#: how many names of files of other kinds are kept
_MOST_OTHERS = 1000
_TOKEN = re.compile(r"[\x21-\x7e]+")
T = TypeVar("T")


# ---------------------------------------------------------------- the client


def client() -> Any:
    """huggingface_hub, imported when it is first needed."""
    import huggingface_hub
    import huggingface_hub.constants

    return huggingface_hub


def endpoint() -> str:
    """The address of the Hub ($HF_ENDPOINT)."""
    return str(client().constants.ENDPOINT)


def offline() -> bool:
    """Whether $HF_HUB_OFFLINE forbids requests."""
    return bool(client().constants.HF_HUB_OFFLINE)


def api(token: str | bool | None) -> Any:
    """The client's `HfApi` that names us in its user agent."""
    return client().HfApi(endpoint=endpoint(), token=token, library_name="zoo", library_version=__version__)


def token_sent(token: str | bool | None) -> str | None:
    """The token that a request will carry: the argument, else the user's own ($HF_TOKEN, `hf auth login`), unless False.

    A token with characters that no token has is refused here: the HTTP layer would print it in its error.
    """
    if token is None:
        token = not client().constants.HF_HUB_DISABLE_IMPLICIT_TOKEN
    found = client().get_token() if token is True else token
    if found is False or found is None:
        return None
    if not isinstance(found, str) or not _TOKEN.fullmatch(found):
        raise HubError("the token has spaces or characters that no token has (it is not shown here). Copy it again.")
    return found


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _stopped(error: BaseException) -> limits.StoppedError | None:
    """The error from below the client that it may have wrapped in its own."""
    return next((e for e in _chain(error) if isinstance(e, limits.StoppedError)), None)


def _pause(error: BaseException, attempt: int) -> float | None:
    """Seconds to wait before the next try; None where another try cannot help."""
    from huggingface_hub.utils import HfHubHTTPError, LocalEntryNotFoundError, httpx

    if _stopped(error):
        return None
    for e in _chain(error):
        if isinstance(e, LocalEntryNotFoundError):
            return None  # the client has already tried six times, or it is offline
        if isinstance(e, HfHubHTTPError):
            if e.response is None or e.response.status_code not in limits.AGAIN:
                return None
            after = e.response.headers.get("Retry-After", "")  # a whole number or nothing: `zoo.hub.limits` sees to it
            return min(float(after), limits.LONGEST_WAIT) if after else WAIT * 2**attempt
        if isinstance(e, (httpx.ProxyError, httpx.UnsupportedProtocol, httpx.LocalProtocolError)):
            return None
        if isinstance(e, httpx.TransportError) or "Consistency check failed" in str(e):
            return WAIT * 2**attempt
    return None


def retried(call: Callable[[], T]) -> T:
    """The result of a call that may be repeated: after a failure that can pass it is, `ATTEMPTS` times in all."""
    with limits.exchange() as here:
        for attempt in range(ATTEMPTS):
            try:
                return call()
            except Exception as error:
                pause = _pause(error, attempt)
                if pause is None or attempt == ATTEMPTS - 1:
                    raise
                here.check(f"the exchange ({type(error).__name__})", pause)
                time.sleep(pause)
    raise HubError("no attempt was made.")  # ATTEMPTS is at least 1


@contextmanager
def explained(address: Address, doing: str, token: str | bool | None) -> Iterator[None]:
    """Turn each failure of the client in the block into one HubError: what, of which repository and revision, what to do.

    All requests in the block are under the limits of `zoo.hub.limits`; a block within another shares its time.
    """
    sent: str | None = None
    try:
        with limits.exchange() as here:
            sent = token_sent(token)
            yield
    except Exception as error:  # the client reads what comes in good faith: an odd answer can end in any error
        stopped = _stopped(error)
        if isinstance(error, ZooError) and stopped is None:
            raise
        text = str(stopped) if stopped is not None else _explanation(error, address, sent, here)
        # without the cause: its text comes from the server and the HTTP layer, and may repeat what was sent to them
        found = ResourceError if "no room" in text else HubError
        raise found(f"cannot {doing} {address}: {_clean(text, sent)}") from None


def _clean(text: str, token: str | None) -> str:
    """A text that may come from the server: on one line, not long, without a token and without what moves a terminal."""
    if token:
        text = text.replace(token, "***")
    text = "".join(c if c.isprintable() else " " for c in re.sub(r"\bhf_\w{4,}", "hf_***", text[:10_000]))
    text = " ".join(text.split())
    return text if len(text) <= 600 else f"{text[:450]} ... {text[-140:]}"


def no_hub() -> str:
    """What to say of an answer that no Hub gives."""
    return f"{endpoint()} does not answer like a Hub. Check HF_ENDPOINT, and what is between (a proxy, a login page)."


def _explanation(error: BaseException, address: Address, sent: str | None, here: limits.Exchange) -> str:
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    page = f"{endpoint()}/{'' if address.kind == 'model' else f'{address.kind}s/'}{address.repo}"
    login = "`hf auth login`, or HF_TOKEN, or token=..."
    chain = list(_chain(error))
    for e in chain:
        status = getattr(getattr(e, "response", None), "status_code", None)
        if isinstance(e, errors.GatedRepoError):  # before its base class RepositoryNotFoundError
            who = "the account of this token has no access yet" if sent else f"give the token of one that has: {login}"
            return f"the repository is gated. Ask for access at {page}; {who}."
        if isinstance(e, errors.RevisionNotFoundError):
            return f"the repository has no revision {address.revision or 'main'!r}. Its branches and tags: {page}/tree/main."
        if isinstance(e, errors.RemoteEntryNotFoundError):
            return f"the file {str(getattr(e.response, 'url', '')).rpartition('/')[2]!r} is not there at this revision."
        if status == 401 and sent and e.response.headers.get("X-Error-Code") != "RepoNotFound":  # type: ignore[attr-defined]
            return (
                "the Hub refuses the token: it is wrong or no longer valid. Make a new one (`hf auth login`); what is public "
                "needs none: token=False, or HF_HUB_DISABLE_IMPLICIT_TOKEN=1 for a command."
            )
        if isinstance(e, errors.RepositoryNotFoundError) or status == 401:
            who = "or this token may not read it" if sent else f"or it is private: then give a token ({login})"
            return f"there is no such repository, {who}. Mind the spelling: {page}."
        if status == 403:
            return f"the token has no right to do this. Give one with write access to {address.repo.split('/')[0]!r} ({login})."
        if status in (409, 412):
            return "somebody else changed the repository meanwhile. Nothing was changed; do it again."
        if status == 429:
            return "the Hub asks for fewer requests (429). Wait some minutes; a token raises the limit."
        if status is not None:
            hint = "The Hub has a problem; try again later." if status >= 500 else "The request was refused."
            reason = " ".join(str(getattr(e, "server_message", None) or "no reason given").split())
            return f"answer {status} ({reason[:200]}). {hint}"
    for e in chain:
        if isinstance(e, errors.OfflineModeIsEnabled):
            return f"offline, and not in the cache. Go online once: zoo pull {PREFIX}{address.repo}, without HF_HUB_OFFLINE."
        if isinstance(e, errors.FileMetadataError):
            return no_hub()
        if isinstance(e, httpx.TooManyRedirects):
            return f"the Hub sends us on in a circle. {no_hub()}"
        if isinstance(e, httpx.TimeoutException):
            return f"{endpoint()} did not answer in time ({type(e).__name__}). {here.words()}"
        if isinstance(e, httpx.TransportError):
            return f"{endpoint()} cannot be reached ({type(e).__name__}). Check the network and HF_ENDPOINT, then try again."
        if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"no room on the disk for the cache {client().constants.HF_HUB_CACHE}. Free some, or set HF_HOME elsewhere."
        if "Consistency check failed" in str(e):
            return "the file came truncated each time. Try again later."
    if isinstance(error, errors.LocalEntryNotFoundError):
        return f"not in the cache. Go online once: zoo pull {PREFIX}{address.repo}."
    if isinstance(error, (LookupError, TypeError, AttributeError, AssertionError, RecursionError, json.JSONDecodeError)):
        return f"{no_hub()} ({type(error).__name__}: {str(error)[:200]})"
    while error.__cause__ is not None:  # what was raised on purpose; the context may be an attempt of no interest
        error = error.__cause__
    return " ".join(f"{type(error).__name__}: {error}".split())


# ---------------------------------------------------------------- what a commit holds


@dataclass(frozen=True)
class Snapshot:
    """One commit: its files of allowed kinds with the hash that each must have.

    Attributes:
        files: name -> SHA-256 (64 hex digits: large files, LFS and Xet) or git's blob id (40: the others).
        private: whether only its owner sees the repository (None: not asked, the answer came from the cache).
        sizes: name -> bytes, of those whose size is known.
        others: names of files of other kinds, of which none is ever fetched.
    """

    address: Address
    commit: str
    files: Mapping[str, str]
    private: bool | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    @property
    def pinned(self) -> Address:
        """The address of exactly this commit."""
        return replace(self.address, revision=self.commit)


def _storage(address: Address) -> Path:
    # the client's own cache, so that its tools list and remove our files too
    return Path(client().constants.HF_HUB_CACHE).expanduser() / f"{address.kind}s--{address.repo.replace('/', '--')}"


def _write(path: Path, data: bytes) -> None:
    from zoo.files import write_atomic

    write_atomic(path, data)


def ask(address: Address, token: str | bool | None) -> Snapshot:
    """What a revision holds, from the Hub: one request, and the one place where a revision becomes a commit."""
    options = {"revision": address.revision, "repo_type": address.kind, "files_metadata": True, "timeout": 30}
    with explained(address, "find", token):
        got = retried(lambda: api(token).repo_info(address.repo, **options))
        found = _listing(address, got)
    if address.kind == "dataset" and any(s.rfilename == f"{address.repo.split('/')[1]}.py" for s in got.siblings):
        raise HubError(f"{address} is made by a script of its own: zoo runs no code of a repository. Use one of plain files.")
    return found


def _listing(address: Address, got: Any) -> Snapshot:
    """The client's answer as ours, each part of it checked: names and hashes become names of files on this machine."""

    def odd(what: str) -> HubError:
        return HubError(f"cannot find {address}: the listing has {_clean(what, None)[:150]}. {no_hub()}")

    if not isinstance(got.sha, str) or not COMMIT.fullmatch(got.sha) or (address.pinned and got.sha != address.revision):
        raise odd(f"the commit {got.sha!r}")
    if got.private is not None and not isinstance(got.private, bool):
        raise odd(f"private = {got.private!r}")
    files: dict[str, str] = {}
    sizes: dict[str, int] = {}
    others: list[str] = []
    if not isinstance(got.siblings, list):
        raise odd("no files")
    for s in got.siblings:
        name = s.rfilename
        if not isinstance(name, str):
            raise odd(f"a file with the name {name!r}")
        if not (allowed(name) or (address.kind == SPACE and name in SPACE_FILES)):
            others.append(name)
            continue
        digest, size = (s.lfs.sha256, s.lfs.size) if s.lfs else (s.blob_id, s.size)
        if not isinstance(digest, str) or not HASH.fullmatch(digest) or len(digest) != (64 if s.lfs else 40):
            raise odd(f"the hash {digest!r} for {name}")
        if files.setdefault(name, digest) != digest:
            raise odd(f"two files {name}")
        if isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 1 << 50:
            sizes[name] = size
    return Snapshot(address, got.sha, dict(sorted(files.items())), got.private, sizes, tuple(others[:_MOST_OTHERS]))


def resolve(address: Address, token: str | bool | None = None, *, local_files_only: bool = False) -> Snapshot:
    """The commit of a revision and what it holds. No request for a known commit, nor offline (then the last one that was seen).

    Raises:
        HubError: unknown, private, gated, out of reach, or offline and never seen.
    """
    storage, local = _storage(address), local_files_only or offline()
    reference = storage / "refs" / (address.revision or "main")
    commit = None
    if address.pinned:
        commit = address.revision
    elif local and reference.is_file():
        text = reference.read_text(encoding="utf-8", errors="replace").strip()
        commit = text if COMMIT.fullmatch(text) else None  # another tool may have written what a server said
    if commit is not None:
        try:
            known = json.loads((storage / "zoo" / f"{commit}.json").read_text(encoding="utf-8"))
            files = {k: v for k, v in known.items() if allowed(k) and isinstance(v, str) and HASH.fullmatch(v)}
            sizes = {k: v for k, v in (known.get(_SIZES) or {}).items() if k in files and isinstance(v, int)}
            others = tuple(n for n in known.get(_OTHERS) or () if isinstance(n, str))
            return Snapshot(address, commit, files, None, sizes, others)
        except (OSError, ValueError, AttributeError):
            pass  # never seen by zoo, or damaged: what the client itself has cached, or ask
        folder = storage / "snapshots" / commit
        if local and folder.is_dir():
            # fetched by another tool: the client names the content by its hash
            names = {p.relative_to(folder).as_posix(): p.resolve().name for p in folder.rglob("*") if p.is_symlink()}
            return Snapshot(address, commit, {k: v for k, v in names.items() if allowed(k)})
    if local:
        raise HubError(
            f"cannot find {address}: offline, and not in the cache. Go online once: zoo pull {PREFIX}{address.repo}"
            f"{f'@{address.revision}' if address.revision else ''}, without HF_HUB_OFFLINE and local_files_only."
        )
    found = ask(address, token)
    _write(
        storage / "zoo" / f"{found.commit}.json",
        json.dumps({**found.files, _SIZES: found.sizes, _OTHERS: found.others}).encode(),
    )
    if not address.pinned:
        _write(reference, found.commit.encode())
    return found


def progressed() -> None:
    """Give a dataset that is being read its whole time again: a row has come, and nobody knows how many there are."""
    if (here := limits.current()) is not None:
        here.restart()


def check_access(snapshot: Snapshot, token: str | bool | None) -> None:
    """Whether this token may read the content (what a repository holds is told even where it is gated); else a HubError."""
    address = snapshot.pinned
    with explained(address, "read", token), limits.exchange() as here:
        here.know(address.repo, snapshot.commit, snapshot.files)
        retried(lambda: api(token).auth_check(address.repo, repo_type=address.kind))


# ---------------------------------------------------------------- files


def fetch(snapshot: Snapshot, name: str, token: str | bool | None = None, *, local_files_only: bool = False) -> Path:
    """One file in the cache, its hash checked each time; a wrong one is fetched once more.

    Raises:
        HubError: it cannot be fetched, or its content is wrong twice: then it is removed from the cache too.
    """
    address, local = snapshot.address, local_files_only or offline()
    token = False if local else token  # reading the user's own token may itself need a request
    if not allowed(name):
        raise HubError(f"{name!r} of {address}: zoo takes only {', '.join(SUFFIXES)} files.")
    if name not in snapshot.files:
        raise HubError(f"{address} (commit {snapshot.commit[:12]}) has no file {name!r}. Is it a model of zoo, whole?")

    def download(force: bool) -> Path:
        with explained(address, f"fetch {name} of", token), limits.exchange() as here:
            here.know(address.repo, snapshot.commit, snapshot.files)
            with here.fetching(name, snapshot.sizes.get(name)), limits.watched(f"the transfer of {name}"):
                if not local:
                    _wait_for_others(snapshot, name, here)
                path = retried(
                    lambda: client().hf_hub_download(
                        address.repo, name, repo_type=address.kind, revision=snapshot.commit, endpoint=endpoint(), token=token,
                        library_name="zoo", library_version=__version__, local_files_only=local, force_download=force,
                    )
                )  # fmt: skip
        return Path(path)

    path, digest = download(False), snapshot.files[name]
    if has_hash(path, digest):
        return path
    if local:
        raise HubError(f"{name} of {address} is damaged in the cache ({path}). Go online: it is then fetched again.")
    path = download(True)
    if has_hash(path, digest):
        return path
    for wrong in {path.resolve(), path}:
        wrong.unlink(missing_ok=True)
    raise HubError(
        f"{name} of {address} came damaged twice: its hash is not {digest}. It was not kept. Try again later, or over "
        f"another network; if it stays so, tell the owner at {endpoint()}/{address.repo}."
    )


def _wait_for_others(snapshot: Snapshot, name: str, here: limits.Exchange) -> None:
    """The client waits without end for another process that fetches the same file: wait here first, no longer than allowed."""
    from huggingface_hub.utils import WeakFileLock

    storage = _storage(snapshot.address)
    lock = storage.parent / ".locks" / storage.name / f"{snapshot.files[name]}.lock"
    if lock.exists():
        try:
            with WeakFileLock(lock, timeout=max(here.left(), 0.001)):
                pass
        except TimeoutError:
            raise here.late(f"waiting for another process that fetches {name} (it holds {lock})") from None


def pull(
    source: str | Address,
    names: Iterable[str] | None = None,
    *,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """Fetch a model into the client's cache; every file is of one commit and has its hash checked.

    Args:
        source: "hub:owner/name[@revision]", or a registry name: its repository in `namespace()`.
        names: what to fetch of what is there, `config.json` always; default: all files of allowed kinds.
        token: an access token; None: the user's own, if any; False: none.
        local_files_only: make no request.

    Returns: the folder of the commit in the cache.

    Raises:
        HubError: nothing of a model that is not whole is ever returned.
    """
    address = source if isinstance(source, Address) else Address.of(source)
    with limits.exchange() as here:
        return _pulled(address, names, token, local_files_only, here)


def _pulled(
    address: Address, names: Iterable[str] | None, token: str | bool | None, local_files_only: bool, here: limits.Exchange
) -> Path:
    snapshot = resolve(address, token, local_files_only=local_files_only)
    missing = [n for n in (CONFIG, WEIGHTS) if n not in snapshot.files]
    needed = None if GOLDEN in snapshot.files else foreign(snapshot)  # no other tool writes a golden file
    if missing and needed is None:
        raise HubError(
            f"{address} is not a model of zoo: it has no {' and no '.join(missing)} (commit {snapshot.commit[:12]})."
        )
    if needed is None:
        needed = [CONFIG]
    wanted = set(snapshot.files if names is None else names) & set(snapshot.files) | set(needed)
    for name in wanted & set(snapshot.sizes):
        here.expect(name, snapshot.sizes[name])
    paths = {n: fetch(snapshot, n, token, local_files_only=local_files_only) for n in sorted(wanted)}
    name, path = next(iter(paths.items()))
    return path.parents[name.count("/")]


def foreign(snapshot: Snapshot) -> list[str] | None:
    """Which files of a repository are needed, where it is in another package's format; None where it is in none that we know.

    Raises:
        CheckpointError: of such a format, and what is needed of it is not there, or is a pickle.
    """
    names = [*snapshot.files, *snapshot.others]
    for name in FORMATS:
        wanted = getattr(FORMATS[name], "wanted", None)
        found = None if wanted is None else wanted(names)
        if found is not None:
            return sorted(set(found) & set(snapshot.files))
    return None


def copy(folder: Path, target: Path) -> Path:
    """A pulled model as plain files in a folder of the user's.

    Only files of allowed kinds are copied: another tool may have put others beside them in the cache. Over a model that is
    there already they come all together, or the old ones stay.
    """
    from zoo.disk import clear_leftovers, new_folder, settle

    names = [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_file()]
    names = [n for n in names if allowed(n)]
    if target.exists() and not target.is_dir():
        raise HubError(f"{target} is a file. Give a folder.")
    settle(target)
    clear_leftovers(target)
    for path in target.rglob("*"):
        if path.is_file() and path.relative_to(target).as_posix() not in names:
            raise HubError(f"{target} holds other files ({path.name}): the model would mix with them. Give a new folder.")
    with new_folder(target) as new:
        for name in names:
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, new / name)
    return target
