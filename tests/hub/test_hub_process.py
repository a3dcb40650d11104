"""What the client reads from the environment at its import, in processes of their own: offline, Xet, the command line."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hubserver import OWNER

import zoo
from zoo.cli import main


def run(code: str, server, home: Path, *, timeout: float = 120, **environment: str) -> str:
    """The output of `code` in a Python of its own; its standard error must not hold the token."""
    own = {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "ZOO_CACHE": str(home / "zoo")} | environment
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | own, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert OWNER not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


LOAD = "import zoo; m = zoo.load('hub:me/m'); print(m.verify(), float(m.sample(2, seed=1, label=3).tensor.double().sum()))"


@pytest.mark.slow
def test_offline_by_the_environment(repo, hub, tmp_path):
    first = run(LOAD, hub, tmp_path)
    hub.log.clear()
    assert run(LOAD, hub, tmp_path, HF_HUB_OFFLINE="1") == first
    assert hub.log == []


@pytest.mark.slow
def test_a_stale_token_of_the_environment(repo, hub, tmp_path):
    code = "from zoo.cli import main; print(main(['info', 'hub:me/m']))"
    stale = {"HF_TOKEN": "hf_stale0000secret", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"}
    assert run(code, hub, tmp_path, **stale).strip() == "2"
    assert hub.log[0].authorization == "Bearer hf_stale0000secret"
    assert run(code, hub, tmp_path, **stale | {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}).strip().endswith("0")


XET = """
import sys, zoo
from pathlib import Path
import huggingface_hub.constants, huggingface_hub.utils._runtime as r
assert not huggingface_hub.constants.HF_HUB_DISABLE_XET and r.is_xet_available()
model = zoo.load(sys.argv[1] if len(sys.argv) > 1 else PATH)
print(model.push_to_hub("me/x", token=TOKEN, tag="v1", samples=False).commit)
got = zoo.load("hub:me/x@v1", token=TOKEN)
assert got.verify() == 0.0
assert all((a == b).all() for a, b in zip(model.state_dict().values(), got.state_dict().values(), strict=True))
"""


@pytest.mark.slow
def test_xet_on_against_a_hub_without_it(folder, repo, hub, model, tmp_path):
    """The client may use Xet, the repository is plain LFS: the download is the ordinary one."""
    pytest.importorskip("hf_xet")
    run(LOAD, hub, tmp_path, HF_HUB_DISABLE_XET="0")


@pytest.mark.slow
def test_a_round_trip_through_xet(folder, hub, tmp_path):
    """With Xet's own client on both ways; its storage is a folder of this machine."""
    hf_xet = pytest.importorskip("hf_xet")
    hub.xet = f"local://{tmp_path / 'cas'}"
    for path in folder.glob("*.safetensors"):  # our server does not read what Xet's storage holds
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        hub.known[digest] = path.read_bytes()
        hub.objects[digest] = hf_xet.hash_files([str(path)])[0].hash
    code = XET.replace("PATH", repr(str(folder))).replace("TOKEN", repr(OWNER))
    run(code, hub, tmp_path / "home", HF_HUB_DISABLE_XET="0")
    repo = hub.repos["model", "me/x"]
    assert len(repo.commits) == 2 and repo.tags == {"v1": repo.branches["main"]}
    assert not any("objects/batch" in p for p in hub.paths()), "nothing went the old way"
    assert not any(s.method == "GET" and s.path.endswith(".safetensors") for s in hub.log)
    assert any("xet-write-token" in p for p in hub.paths()) and any("xet-read-token" in p for p in hub.paths())


STALLED = """
import time, zoo
from pathlib import Path
from zoo.hub import client
import huggingface_hub.utils._runtime as r
assert r.is_xet_available()
model = zoo.load(PATH)
push = lambda: model.push_to_hub("me/x", token=TOKEN, samples=False)
for call in (lambda: client.pull("hub:me/m", ["model.safetensors"]), push):
    started = time.monotonic()
    try:
        call()
    except zoo.ZooError as error:
        assert "took too long. The limits" in str(error), error
    else:
        raise SystemExit("it ended well")
    assert time.monotonic() - started < 12
"""


@pytest.mark.slow
def test_a_storage_of_xet_that_says_nothing(folder, repo, hub, tmp_path):
    """Its network code is not Python's: it is ended from outside."""
    hf_xet = pytest.importorskip("hf_xet")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        hub.xet = f"http://127.0.0.1:{listening.getsockname()[1]}"
        for path in folder.glob("*.safetensors"):
            hub.objects[hashlib.sha256(path.read_bytes()).hexdigest()] = hf_xet.hash_files([str(path)])[0].hash
        code = STALLED.replace("PATH", repr(str(folder))).replace("TOKEN", repr(OWNER))
        run(code, hub, tmp_path / "home", HF_HUB_DISABLE_XET="0", ZOO_HUB_TIMEOUT="4")


# ---------------------------------------------------------------- the command line


@pytest.fixture
def own_token(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    monkeypatch.setenv("HF_TOKEN", OWNER)


def test_push_pull_and_use(hub, folder, tmp_path, capsys, own_token):
    assert main(["push", str(folder), "me/m", "--private", "--tag", "v1", "--no-samples"]) == 0
    assert "hub:me/m: 4 files changed" in capsys.readouterr().out
    assert main(["pull", "hub:me/m@v1", "-o", str(tmp_path / "out")]) == 0
    assert zoo.load(tmp_path / "out").verify() == 0.0
    assert main(["pull", "hub:me/m", "--offline"]) == 2
    assert main(["info", "hub:me/m@v1"]) == 0
    assert main(["info", str(folder)]) == 0
    assert "sneaker" in capsys.readouterr().out
    assert main(["verify", "hub:me/m@v1"]) == 0
    assert main(["sample", "hub:me/m@v1", "-n", "2", "--label", "bag", "-o", str(tmp_path / "s")]) == 0
    assert len(list((tmp_path / "s").glob("0*.png"))) == 2
    assert main(["pull", "hub:me/nothing"]) == 2
    assert main(["pull", "image/fashion-dpm"]) == 2
    assert main(["push", str(folder), "no-owner"]) == 2
    captured = capsys.readouterr()
    assert (
        captured.err.count("\n") == 3
        and "Did you mean 'image/fashion-ddpm'" in captured.err
        and OWNER not in captured.err + captured.out
    )


def test_publish(hub, folder, tmp_path, capsys, own_token, monkeypatch):
    shutil.copytree(folder, tmp_path / "image" / "fashion-ddpm")
    monkeypatch.setattr("zoo.contract.registry.CHECKPOINTS", tmp_path)
    assert main(["publish", "--namespace", "me"]) == 0
    assert "image/fashion-ddpm -> hub:me/image-fashion-ddpm: 5 files changed" in capsys.readouterr().out
    assert main(["publish", "--namespace", "me", "--pattern", "image/*"]) == 0
    assert "all of it was there" in capsys.readouterr().out
    assert main(["publish", "--namespace", "other"]) == 2


@pytest.mark.slow
def test_train_starts_from_a_model_of_the_hub(hub, tmp_path, capsys):
    from PIL import Image

    for i in range(4):
        Image.new("L", (28, 28), 60 * i).save(tmp_path / f"{i}.png")
    changes = {
        "net.channels": 16,
        "net.multipliers": [1],
        "net.attention": [False],
        "net.emb_dim": 16,
        "training.batch_size": 2,
    }
    sets = [f"--set={k}={json.dumps(v)}" for k, v in changes.items()]
    arguments = ["train", "image/fashion-ddpm", "--data", str(tmp_path), "--steps", "1", "--cpu", *sets, "--out"]
    assert main([*arguments, str(tmp_path / "one")]) == 0
    names = ("config.json", "model.safetensors", "golden.safetensors")
    hub.add("me/m", {n: (tmp_path / "one" / n).read_bytes() for n in names})
    assert main([*arguments, str(tmp_path / "two"), "--init", "hub:me/m"]) == 0
    assert any(p.endswith("model.safetensors") for p in hub.paths())
    assert main([*arguments, str(tmp_path / "three"), "--init", "hub:me/nothing"]) == 2
    assert "me/nothing@main: there is no such repository" in capsys.readouterr().err
