"""Push the page of `zoo demo` as a Space of the Hub: three small files in one commit, or nothing; repeating it is safe."""

from __future__ import annotations

from zoo import __version__
from zoo.errors import ConfigError, HubError
from zoo.files import dump_json
from zoo.hub import client as hub
from zoo.hub import limits
from zoo.hub.address import COMMIT, SPACE, Address, git_blob_id
from zoo.hub.push import Pushed, check_card, writable

#: what the page needs beside the base package: the domains' own extras
EXTRAS = "demo,audio,point3d,policy,protein"
#: the port that a Space shows
PORT = 7860


def app(models: str = "*") -> dict[str, bytes]:
    """{name: content} of a Space that shows the models.

    Args:
        models: patterns of packaged models and hub:owner/name, with commas between.

    Raises:
        ConfigError: a folder: it is not on the Space's machine.
    """
    names = [name.strip() for name in models.split(",")]
    for name in names:
        if name.startswith(("/", ".", "~")):
            raise ConfigError(
                f"{name}: a folder of this machine is not on the Space's. Push it first (zoo push {name} owner/name), then "
                "name it as hub:owner/name."
            )
    used = [name.removeprefix("hub:") for name in names if name.startswith("hub:")]
    about = {
        "title": "zoo",
        "sdk": "gradio",
        "app_file": "app.py",
        "license": "apache-2.0",
        "short_description": "Diffusion models, step by step",
    }
    listed = "".join(f"- {name}\n" for name in used)
    head = "".join(f"{k}: {v}\n" for k, v in about.items()) + (f"models:\n{listed}" if used else "")
    text = dump_json(models).decode().strip()
    return {
        "README.md": (
            f"---\n{head}---\n\nThe page of `zoo demo`, zoo {__version__}: noise becomes an object step by step. On one's own "
            'machine, without a network: `pip install "diffusion-zoo[demo]"`, then `zoo demo`.\n'
        ).encode(),
        "app.py": f'from zoo.demo.serve import launch\n\nlaunch({text}, host="0.0.0.0", port={PORT})\n'.encode(),
        "requirements.txt": f"diffusion-zoo[{EXTRAS}]=={__version__}\n".encode(),
    }


def push_space(repo: str, models: str = "*", *, private: bool = False, token: str | bool | None = None) -> Pushed:
    """Push the page as the Space "owner/name", in one commit; files of other names that are there stay.

    Args:
        models: see `app`.
        private: make it private. One that is there keeps what it is; a public one is then an error.

    Raises:
        ConfigError: a folder among the models.
        HubError: the Hub refuses or cannot be reached. Repeating the push is always safe.
    """
    files = app(models)
    check_card(files["README.md"].decode())
    address = Address(writable(repo, None, token).repo, None, SPACE)
    changed: dict[str, None] = {}

    def once() -> str:
        there = hub.ask(address, token)
        if private and not there.private:
            raise HubError(f"{address.repo} is public, and private was asked for. Nothing was pushed. Change it on its page.")
        new = [n for n, data in files.items() if there.files.get(n) != git_blob_id(data)]
        if not new:
            return there.commit
        changed.update(dict.fromkeys(new))
        client = hub.client()
        operations = [client.CommitOperationAdd(n, files[n]) for n in new]
        how = {"repo_type": SPACE, "commit_message": f"zoo demo {__version__}", "parent_commit": there.commit}
        with limits.watched("the upload"):
            made = hub.api(token).create_commit(address.repo, operations, **how)
        if not isinstance(made.oid, str) or not COMMIT.fullmatch(made.oid):
            raise HubError(f"cannot push to {address}: the new commit has the name {str(made.oid)[:80]!r}. {hub.no_hub()}")
        held = hub.ask(Address(address.repo, made.oid, SPACE), token).files
        wrong = sorted(n for n in files if held.get(n) != git_blob_id(files[n]))
        if wrong:
            raise HubError(
                f"cannot push to {address}: the new commit does not hold what was sent: {', '.join(wrong)}. Push again."
            )
        return made.oid

    with limits.exchange(), hub.explained(address, "push to", token):
        api = hub.api(token)
        made = {"repo_type": SPACE, "space_sdk": "gradio", "private": private, "exist_ok": True}
        hub.retried(lambda: api.repo_exists(address.repo, repo_type=SPACE) or api.create_repo(address.repo, **made))
        commit = hub.retried(once)
    return Pushed(f"spaces/{address.repo}", commit, tuple(sorted(changed)))
