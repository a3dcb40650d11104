"""Push a model folder to the Hub: all of it or nothing for a reader, and safe to repeat after any interruption.

The order makes it so: the folder is checked, the large files go to the storage, one commit makes them all visible, and
the tag comes last. Each step first looks at what is there, so a second run does what is left to do and no more.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo import __version__
from zoo.contract.recipe import Recipe
from zoo.contract.registry import get_recipe, list_models
from zoo.errors import CheckpointError, ConfigError, HubError
from zoo.files import load_metadata, parse_json
from zoo.hub import client as hub
from zoo.hub import limits
from zoo.hub.address import COMMIT, PREFIX, Address, allowed, git_blob_id, has_hash
from zoo.hub.card import MOST_CARD, edited, renew

CARD, CURVES, PICTURE = "README.md", "curves.json", "samples.png"
MEDIA = (".wav", ".gif", ".mp4")  # samples that a card plays
#: of a training run, not of a model: it is large, and needs none of it to be sampled
CHECKPOINT = "checkpoint.safetensors"
#: what zoo itself once pushed and may remove again when the folder has it no more; other people's files stay
OURS = re.compile(r"evaluation\.json|curves\.json|samples\.png|samples/[^/]+")


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes:
        commit: the commit that holds the model now.
        changed: the files that this push changed; none if all of it was there.
        tag: the tag that names the commit, if one was asked for.
    """

    repo: str
    commit: str
    changed: tuple[str, ...]
    tag: str | None = None

    def __str__(self) -> str:
        what = f"{len(self.changed)} files changed" if self.changed else "all of it was there"
        tag = f", tag {self.tag}" if self.tag else ""
        name = self.repo if self.repo.startswith("spaces/") else f"{PREFIX}{self.repo}"
        return f"{name}: {what}, commit {self.commit[:12]}{tag}. {hub.endpoint()}/{self.repo}"


def model_files(folder: Path) -> dict[str, Path]:
    """What of a folder is pushed: files of allowed kinds at its top and in samples/, not the training checkpoint.

    Raises:
        CheckpointError: one of them is a link that leads out of the folder: what is there was not given to be published.
    """
    inside = [Path(os.path.realpath(folder))]
    cache = Path(os.path.realpath(Path(hub.client().constants.HF_HUB_CACHE).expanduser()))
    if inside[0].is_relative_to(cache):
        inside.append(cache)  # a pulled model: the client keeps the content apart, and links to it
    found = {}
    for path in sorted([*folder.glob("*"), *folder.glob("samples/*")]):
        name = path.relative_to(folder).as_posix()
        if not allowed(name) or name == CHECKPOINT:
            continue
        real = Path(os.path.realpath(path))
        if not any(real.is_relative_to(root) for root in inside):
            raise CheckpointError(
                f"{path} is a link to {real}, outside of the folder: it is not pushed. Put a copy there, or remove the link."
            )
        if path.is_symlink() and not path.exists():
            raise CheckpointError(f"{path} is a link to nothing. Remove it, or put the file there.")
        if real.is_file():
            found[name] = real  # not the link, which may lead elsewhere by the time that it is read
    return found


def training_command(recipe: Recipe, run: Path) -> str | None:
    """The `zoo train` command of a run folder, from its checkpoint and what its recipe changed of the registered one."""
    name = f"{recipe.domain}/{recipe.name}"
    try:
        facts = parse_json(load_metadata(run / CHECKPOINT)["zoo"], run / CHECKPOINT)
    except (CheckpointError, KeyError):
        return None  # it is not a run of zoo
    if name not in list_models() or not isinstance(facts, dict) or not {"steps", "seed"} <= facts.keys():
        return None

    def flat(data: Any, path: str = "") -> dict[str, Any]:
        if isinstance(data, dict) and data:
            return {k: v for key, value in data.items() for k, v in flat(value, f"{path}.{key}" if path else key).items()}
        return {path: data}

    # a first stage by its name alone: what it is, its folder says
    named = [r.staged(r.stage.name if r.stage else None) for r in (get_recipe(name), recipe)]
    before, after = (flat(r.model_dump(mode="json")) for r in named)
    ignored = ("conditions", "data", "licence", "description", "sampling", "paper")  # of the data, or of no effect on it
    frozen = after.pop("training.freeze", None) or []
    sets = [
        f"--set {k}={json.dumps(v)}" for k, v in after.items() if before.get(k, ...) != v and k.split(".")[0] not in ignored
    ]
    sets += [f"--freeze {shlex.quote(pattern)}" for pattern in frozen]
    if facts.get("init"):
        sets.insert(0, f"--init {facts['init']}")
    data = recipe.data.split(",")[0] if recipe.data.startswith(PREFIX) else "DATA"
    return " ".join([f"zoo train {name} --data {data} --out RUN --steps {facts['steps']} --seed {facts['seed']}", *sets])


def check_card(text: str) -> None:
    """The client's own reading of a card; what it refuses is a HubError."""
    try:
        hub.client().ModelCard(text, ignore_metadata_errors=False)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        text = " ".join(str(error).split())[:300]
        raise HubError(
            f"README.md: its metadata are not valid for the Hub: {text}. Mend the part between the lines ---."
        ) from None


def writable(repo: str, tag: str | None, token: str | bool | None) -> Address:
    """The address of a repository that can be pushed to, checked before anything is done.

    Raises:
        HubError: a repository or a tag with an invalid name, a revision, no network allowed, or no token.
    """
    address = Address.parse(repo)
    if address.revision is not None:
        raise HubError(f"{repo!r}: push goes to the main branch. Give owner/name, and name the state with tag=.")
    if tag is not None:
        Address.parse(f"{address.repo}@{tag}")
    if hub.offline():
        raise HubError(f"cannot push to {address.repo}: HF_HUB_OFFLINE is set. Unset it.")
    if hub.token_sent(token) is None:
        raise HubError(
            f"cannot push to {address.repo} without a token. Make one with write access, then `hf auth login`, or set "
            "HF_TOKEN, or give token=..."
        )
    return address


def push(
    address: Address,
    files: Mapping[str, Path],
    recipe: Recipe,
    card: str,
    *,
    private: bool = False,
    token: str | bool | None = None,
    tag: str | None = None,
) -> Pushed:
    """Push the files of a verified model folder, in one commit.

    Args:
        address: as `writable` gives it; the repository is made when it is not there.
        files: {name in the repository: file}.
        card: the new README.md; a text that somebody edited, in `files` or on the Hub, stays below its new metadata.
        private: make the repository private. One that is there keeps what it is; a public one is then an error.
        tag: a name for this state, e.g. "v1.0"; it is set last and never moved.

    Raises:
        ConfigError: a card without readable metadata.
        HubError: the Hub refuses, cannot be reached, or the tag names another state. Repeating the push is always safe.
    """
    with limits.exchange() as here:
        _create(address, private, token)
        return _publish(address, files, recipe, card, here, private=private, token=token, tag=tag)


def _create(address: Address, private: bool, token: str | bool | None) -> None:
    api = hub.api(token)
    with hub.explained(address, "push to", token):
        hub.retried(lambda: api.repo_exists(address.repo) or api.create_repo(address.repo, private=private, exist_ok=True))


def _publish(
    address: Address,
    files: Mapping[str, Path],
    recipe: Recipe,
    fresh: str,
    here: limits.Exchange,
    *,
    private: bool,
    token: str | bool | None,
    tag: str | None,
) -> Pushed:
    changed: dict[str, None] = {}  # in all rounds

    def once() -> str:
        # from the start each time: where only the answer of a commit was lost, this finds the work done
        there = hub.ask(address, token)
        if private and not there.private:
            raise HubError(f"{address.repo} is public, and private was asked for. Nothing was pushed. Change it on its page.")
        card = _card(files.get(CARD), fresh, there, token).encode()
        new = [n for n, p in files.items() if n != CARD and not (n in there.files and has_hash(p, there.files[n]))]
        if there.files.get(CARD) != git_blob_id(card):
            new.append(CARD)
        gone = [n for n in there.files if OURS.fullmatch(n) and n not in files]
        if not new and not gone:
            return there.commit
        if tag and (at := _tagged(address, tag, token)):
            raise HubError(_other_state(address, tag, at))
        changed.update(dict.fromkeys([*new, *gone]))
        for n in new:
            here.expect(n, files[n].stat().st_size if n != CARD else len(card))
        client = hub.client()
        operations = [client.CommitOperationAdd(n, card if n == CARD else str(files[n])) for n in new]
        operations += [client.CommitOperationDelete(n, is_folder=False) for n in gone]
        message = f"{recipe.domain}/{recipe.name}, zoo {__version__}"
        with limits.watched("the upload"):
            made = hub.api(token).create_commit(address.repo, operations, commit_message=message, parent_commit=there.commit)
        if not isinstance(made.oid, str) or not COMMIT.fullmatch(made.oid):
            raise HubError(f"cannot push to {address}: the new commit has the name {str(made.oid)[:80]!r}. {hub.no_hub()}")
        _check_content(Address(address.repo, made.oid), {n: files.get(n) for n in new}, card, gone, token)
        return made.oid

    with hub.explained(address, "push to", token):
        commit = hub.retried(once)
        if tag and not (at := _tagged(address, tag, token)):
            hub.retried(lambda: hub.api(token).create_tag(address.repo, tag=tag, revision=commit, exist_ok=True))
            at = _tagged(address, tag, token)
            if at != commit:  # somebody else was quicker
                raise HubError(_other_state(address, tag, at))
    return Pushed(address.repo, commit, tuple(sorted(changed)), tag)


def _check_content(
    at: Address, new: Mapping[str, Path | None], card: bytes, gone: Sequence[str], token: str | bool | None
) -> None:
    """Whether a new commit holds what was sent: the Hub may leave out a file without an error."""
    there = hub.ask(at, token).files
    wrong = [n for n in gone if n in there] + [n for n in new if n not in there]
    for name in set(new) & set(there):
        path = new[name]
        same = there[name] == git_blob_id(card) if name == CARD or path is None else has_hash(path, there[name])
        if not same:
            wrong.append(name)
    if wrong:
        names = ", ".join(sorted(wrong))
        raise HubError(f"cannot push to {at}: the new commit does not hold what was sent: {names}. Push again.")


def _other_state(address: Address, tag: str, commit: str | None) -> str:
    return (
        f"{address.repo} has the tag {tag!r} already, of another state (commit {str(commit)[:12]}). Tags are not moved: give "
        "another one, or remove it on the Hub."
    )


def _tagged(address: Address, tag: str, token: str | bool | None) -> str | None:
    refs = hub.retried(lambda: hub.api(token).list_repo_refs(address.repo))
    commit = next((t.target_commit for t in refs.tags if t.name == tag), None)
    if commit is not None and (not isinstance(commit, str) or not COMMIT.fullmatch(commit)):
        raise HubError(f"cannot push to {address}: the tag {tag!r} is of {str(commit)[:80]!r}, not of a commit. {hub.no_hub()}")
    return commit


def _card(local: Path | None, fresh: str, there: hub.Snapshot, token: str | bool | None) -> str:
    """What README.md becomes: a text that somebody wrote is kept, the folder's before the repository's."""
    paths = [local] if local else []
    if CARD in there.files:
        if there.sizes.get(CARD, 0) > MOST_CARD:
            raise HubError(f"README.md of {there.pinned} has {there.sizes[CARD]} bytes, more than {MOST_CARD}. Shorten it.")
        paths.append(hub.fetch(there, CARD, token))
    for path in paths:
        if path.stat().st_size > MOST_CARD:
            raise ConfigError(f"{path} has {path.stat().st_size} bytes, more than {MOST_CARD}. Shorten it.")
        old = path.read_bytes().decode("utf-8", "replace")  # bytes: line ends stay as they are
        if edited(old):
            fresh = renew(old, fresh)
            break
    check_card(fresh)
    return fresh
