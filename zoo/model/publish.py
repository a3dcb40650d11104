"""Put model folders, and every packaged model, on the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from zoo import __version__
from zoo.contract.registry import list_models, packaged_folder
from zoo.hub.address import namespace as default_namespace
from zoo.hub.push import Pushed, writable
from zoo.model.model import Model

#: the tag of packaged models, by default
TAG = f"v{__version__}"


def push(
    source: Model | str | Path,
    repo: str,
    *,
    private: bool = False,
    token: str | bool | None = None,
    tag: str | None = None,
    samples: bool = True,
) -> Pushed:
    """Push a model to the Hub, in one commit.

    Args:
        source: a model, or a model folder, e.g. a finished run.
        repo: "owner/name"; made when it is not there.
        private: make the repository private. One that is there keeps what it is; a public one is then an error.
        token: an access token with the right to write; None: the user's own ($HF_TOKEN, `hf auth login`).
        tag: a name for this state, e.g. "v1.0"; it is set last and never moved.
        samples: draw a sample picture where the folder has none.

    A README.md whose text somebody edited, here or on the Hub, keeps its text; only its metadata are renewed.

    Raises:
        CheckpointError: the folder is not a whole model. ConfigError: its card has no readable metadata.
        HubError: the Hub refuses, cannot be reached, or the tag names another state. Repeating the push is always safe.
    """
    writable(repo, tag, token)  # before anything is read
    model = source if isinstance(source, Model) else Model.from_folder(Path(source).expanduser())
    return model.push_to_hub(repo, private, token, tag=tag, samples=samples)


def publish(
    namespace: str | None = None,
    *,
    private: bool = False,
    token: str | bool | None = None,
    tag: str | None = TAG,
    pattern: str = "*",
) -> Iterator[tuple[str, Pushed]]:
    """Push every packaged model to "namespace/domain-model"; yields (registry name, what was done) after each.

    A second call changes nothing. A call that was interrupted is simply made again.

    Args:
        namespace: default `zoo.hub.address.namespace()`, where `zoo.load` looks.
        tag: of every repository; default the version of zoo. A tag that is there stays where it is.
        pattern: only these names, e.g. "image/*".
    """
    for name in list_models(pattern):
        if folder := packaged_folder(name):
            repo = f"{namespace or default_namespace()}/{name.replace('/', '-')}"
            yield name, push(folder, repo, private=private, token=token, tag=tag)
