"""Pushing: one commit, tag last, the same end after every interruption, only allowed files, cards that keep their text."""

import json
import shutil

import huggingface_hub.constants
import huggingface_hub.utils
import pytest
import torch
from hubserver import OTHER, OWNER, READER, equal

import zoo
from zoo import files
from zoo.errors import CheckpointError, ConfigError, HubError
from zoo.files import reseal
from zoo.hub import card
from zoo.hub.push import model_files, training_command
from zoo.model.publish import publish, push

EVALUATION = {
    "metrics": {
        "frechet": {"value": 0.5, "ceiling": 0.1, "floor": 40.0, "better": "lower"},
        "precision": {"value": 0.8, "better": "higher", "interval": [0.7, 0.9]},
    },
    "protocol": {"samples": 10, "sampler": "ddim", "steps": 2, "seed": 0, "precision": "bf16", "frechet": "squared distance",
                 "precision_recall": "k = 3", "training": "9 steps", "command": "zoo train x"},
}  # fmt: skip


@pytest.fixture
def mine(folder, tmp_path):
    """A model folder of one's own, with an evaluation and a sample picture."""
    target = tmp_path / "mine"
    shutil.copytree(folder, target)
    (target / "evaluation.json").write_text(json.dumps(EVALUATION))
    zoo.load(target).sample(4, seed=0).plot(target / "samples.png")
    return target


def writes(hub) -> list[str]:
    return [f"{s.method} {s.path}" for s in hub.log + hub.cdn.log if s.method not in ("GET", "HEAD")]


# ---------------------------------------------------------------- the way that works


def test_a_round_trip_through_the_server(hub, model, mine):
    loaded = zoo.load(mine)
    pushed = loaded.push_to_hub("me/new", token=OWNER)
    repo = hub.repos["model", "me/new"]
    assert pushed.commit == repo.branches["main"] and not repo.private
    got = zoo.load("hub:me/new")
    assert equal(got, model) and got.verify() == 0.0
    assert torch.equal(got.sample(2, seed=5, label=[1, 2]).tensor, model.sample(2, seed=5, label=[1, 2]).tensor)
    text = repo.files["README.md"].decode()
    data = huggingface_hub.ModelCard(text).data  # the client's own validator reads it strictly
    assert (data.library_name, data.license, data.pipeline_tag) == ("zoo", "apache-2.0", "unconditional-image-generation")
    assert {r.metric_type: r.metric_value for r in data.eval_results} == {"frechet": 0.5, "precision": 0.8}
    assert 'zoo.load("hub:me/new")' in text and "![samples](samples.png)" in text and "zoo train x" in text
    assert sorted(repo.files) == [".gitattributes", "README.md", "config.json", "evaluation.json", "golden.safetensors",
                                  "model.safetensors", "samples.png"]  # fmt: skip
    assert repo.files["model.safetensors"] == (mine / "model.safetensors").read_bytes()


def test_the_files_are_one_commit_and_the_tag_comes_last(hub, mine):
    pushed = push(mine, "me/new", token=OWNER, tag="v1.0")
    assert len(hub.repos["model", "me/new"].commits) == 2, "the empty one, and all files"
    assert hub.repos["model", "me/new"].tags == {"v1.0": pushed.commit}
    order = [s.path.split("/")[-2] for s in hub.log if s.method == "POST"]
    assert order[-2:] == ["commit", "tag"] and order.count("commit") == 1
    assert zoo.load("hub:me/new@v1.0").verify() == 0.0


def test_a_second_push_changes_nothing(hub, mine):
    first = push(mine, "me/new", token=OWNER, tag="v1")
    hub.log.clear()
    hub.cdn.log.clear()
    again = push(mine, "me/new", token=OWNER, tag="v1")
    assert again.commit == first.commit and again.changed == () and "all of it was there" in str(again)
    assert writes(hub) == []
    assert len(hub.repos["model", "me/new"].commits) == 2


def test_a_model_in_memory_is_written_anew_without_old_measurements(hub, mine):
    model = zoo.load(mine)
    with torch.no_grad():
        next(model.denoiser.parameters()).add_(0.01)
    model.push_to_hub("me/new", token=OWNER, samples=False)
    files = hub.repos["model", "me/new"].files
    assert "evaluation.json" not in files and b"model-index" not in files["README.md"] and "samples.png" not in files
    assert equal(zoo.load("hub:me/new"), model)


def test_a_push_without_pictures_draws_some(hub, folder, model):
    push(folder, "me/new", token=OWNER)
    files = hub.repos["model", "me/new"].files
    assert files["samples.png"][:4] == b"\x89PNG" and b"![samples](samples.png)" in files["README.md"]
    assert not (folder / "samples.png").exists(), "the user's folder is left as it is"


def test_samples_that_a_card_plays(hub, folder, monkeypatch):
    monkeypatch.setattr("zoo.image.domain.ImageDomain.suffix", ".gif")  # stands for sound, which is played too
    push(folder, "me/new", token=OWNER)
    files = hub.repos["model", "me/new"].files
    names = sorted(n for n in files if n.startswith("samples/"))
    assert len(names) == 4 and names[0] == "samples/0000-t_shirt.gif" and files[names[0]][:3] == b"GIF"
    assert f'<audio controls src="{hub.url}/me/new/resolve/main/{names[0]}"></audio>' in files["README.md"].decode()


def test_private_and_the_token_stay_where_they_belong(hub, mine, caplog, capfd):
    caplog.set_level("DEBUG")
    pushed = push(mine, "me/new", private=True, token=OWNER, tag="v1")
    repo = hub.repos["model", "me/new"]
    assert repo.private
    assert hub.cdn.log and all(s.authorization is None for s in hub.cdn.log), "no token to the storage host"
    text = str(pushed) + repr(pushed) + caplog.text + "".join(capfd.readouterr())
    assert OWNER not in text and not any(OWNER.encode() in data for data in repo.files.values())
    assert all(OWNER.encode() not in s.body and OWNER not in s.path + s.query + s.agent for s in hub.log + hub.cdn.log)
    with pytest.raises(HubError, match="private"):
        zoo.load("hub:me/new")


def test_private_is_never_pushed_to_a_public_repository(hub, mine):
    repo = hub.add("me/new", {"README.md": b"hi"})
    with pytest.raises(HubError, match=r"me/new is public, and private was asked for. Nothing was pushed"):
        push(mine, "me/new", private=True, token=OWNER)
    assert len(repo.commits) == 1 and not hub.cdn.log


def test_a_run_folder_gives_the_model_and_not_the_checkpoint(mine):
    for name in ("checkpoint.safetensors", "log.csv", "x.py", "model.bin", ".hidden.json", "notes.txt"):
        (mine / name).write_bytes(b"x")
    for name in ("previews/1.png", "tensorboard/events.json", "samples/0000-a.wav", "samples/deep/x.wav"):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_bytes(b"x")
    model = ["README.md", "config.json", "evaluation.json", "golden.safetensors", "model.safetensors", "samples.png"]
    assert sorted(model_files(mine)) == [*model, "samples/0000-a.wav"]


def test_files_of_others_stay_and_our_own_old_ones_go(hub, mine):
    hub.add(
        "me/new", {"LICENSE": b"x", "pytorch_model.bin": b"y", "banner.png": b"z", "curves.json": b"{}", "samples/0.wav": b"w"}
    )
    push(mine, "me/new", token=OWNER)
    files = hub.repos["model", "me/new"].files
    assert {"LICENSE", "pytorch_model.bin", "banner.png"} <= files.keys()
    assert not {"curves.json", "samples/0.wav"} & files.keys()


# ---------------------------------------------------------------- what is refused


def test_without_a_token(hub, mine):
    for token in (None, False):
        with pytest.raises(HubError, match=r"cannot push to me/new without a token.*hf auth login.*HF_TOKEN"):
            push(mine, "me/new", token=token)
    assert hub.log == []


@pytest.mark.parametrize("token", [READER, OTHER])
def test_without_the_right_to_write(hub, mine, token):
    hub.add("me/new", {"README.md": b"hi"})
    with pytest.raises(HubError, match=r"me/new@main: the token has no right to do this.*write access to 'me'") as caught:
        push(mine, "me/new", token=token)
    assert token not in str(caught.value)


def test_a_stale_token(hub, mine):
    with pytest.raises(HubError, match="push to me/new@main: the Hub refuses the token"):
        push(mine, "me/new", token="hf_stale0000secret")


def test_a_broken_folder_never_leaves_this_machine(hub, mine):
    config = json.loads((mine / "config.json").read_text())
    config["recipe"]["net"]["channels"] = 32
    (mine / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="SHA-256"):
        push(mine, "me/new", token=OWNER)
    reseal(mine / "config.json")
    with pytest.raises(CheckpointError, match="does not fit"):
        push(mine, "me/new", token=OWNER)
    with pytest.raises(CheckpointError, match="no model folder"):
        push(mine / "nothing", "me/new", token=OWNER)
    assert hub.log == []


def test_a_golden_that_does_not_fit_is_not_pushed(hub, mine):
    golden = files.load_tensors(mine / "golden.safetensors")
    golden["out"] += 1
    files.save_tensors(mine / "golden.safetensors", golden)
    with pytest.raises(CheckpointError, match="golden"):
        push(mine, "me/new", token=OWNER)
    assert hub.log == []


@pytest.mark.parametrize("repo", ["new", "me/new@v1", "me/a/b", "../x"])
def test_a_name_that_is_none(hub, mine, repo):
    with pytest.raises(HubError, match="owner/name"):
        push(mine, repo, token=OWNER)


def test_offline(hub, mine, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        push(mine, "me/new", token=OWNER)
    assert hub.log == []


def test_a_tag_is_never_moved(hub, mine, model):
    first = push(mine, "me/new", token=OWNER, tag="v1")
    (mine / "samples.png").write_bytes(b"\x89PNG other")
    with pytest.raises(HubError, match="me/new has the tag 'v1' already, of another state"):
        push(mine, "me/new", token=OWNER, tag="v1")
    repo = hub.repos["model", "me/new"]
    assert repo.branches["main"] == first.commit and repo.tags == {"v1": first.commit}, "nothing was pushed"
    assert push(mine, "me/new", token=OWNER, tag="v2").commit == repo.tags["v2"] != first.commit


def test_a_change_by_somebody_else_meanwhile(hub, mine):
    repo = hub.add("me/new", {"README.md": b""})

    class Log(list):
        def append(self, seen):
            if "/preupload/" in seen.path and len(repo.commits) == 1:
                repo.commit(repo.files | {"config.json": b"theirs"})
            super().append(seen)

    hub.log = Log()
    with pytest.raises(HubError, match="somebody else changed the repository meanwhile"):
        push(mine, "me/new", token=OWNER)
    assert len(repo.commits) == 2 and repo.files["config.json"] == b"theirs"
    push(mine, "me/new", token=OWNER)
    assert len(repo.commits) == 3


# ---------------------------------------------------------------- interrupted anywhere

STEPS = [
    ("GET", "/api/models/me/new$"), ("POST", "/api/repos/create"), ("POST", "validate-yaml"), ("POST", "/preupload/"),
    ("POST", "objects/batch"), ("PUT", "/lfs/"), ("POST", "/commit/"), ("GET", "/refs"), ("POST", "/tag/"),
]  # fmt: skip


def state(hub) -> tuple:
    repo = hub.repos["model", "me/new"]
    return repo.files, {k: repo.find(v)[2] for k, v in repo.tags.items()}


#: the two steps at which the most is at stake in the quick suite, the others in the slow one
EACH_STEP = [x if x[1] in ("/lfs/", "/commit/") else pytest.param(*x, marks=pytest.mark.slow) for x in STEPS]


@pytest.mark.parametrize("kind", ["lost", *(pytest.param(k, marks=pytest.mark.slow) for k in ("drop", "status"))])
@pytest.mark.parametrize(("method", "pattern"), EACH_STEP)
def test_a_fault_that_passes_at_any_step_is_survived(hub, mine, method, pattern, kind):
    place = hub.cdn if method == "PUT" else hub
    place.fault(pattern, kind, method=method, status=503)
    pushed = push(mine, "me/new", token=OWNER, tag="v1")
    assert place.faults[0].times == 0, "the fault was met"
    files, tags = state(hub)
    assert tags == {"v1": files} and files["config.json"] == (mine / "config.json").read_bytes()
    assert set(pushed.changed) == set(files) - {".gitattributes"}
    assert len(hub.repos["model", "me/new"].commits) == 2, "a lost answer is no second commit"


@pytest.mark.parametrize(("method", "pattern"), EACH_STEP)
def test_a_push_interrupted_at_any_step_shows_nothing_partial_and_can_be_repeated(hub, mine, method, pattern):
    place = hub.cdn if method == "PUT" else hub
    place.fault(pattern, "status", method=method, status=418, times=99)
    with pytest.raises(HubError, match="me/new@main: "):
        push(mine, "me/new", token=OWNER, tag="v1")
    repo = hub.repos.get(("model", "me/new"))
    assert repo is None or set(repo.files) == {".gitattributes"} or "model.safetensors" in repo.files
    assert repo is None or repo.tags == {}, "the tag is last"
    place.faults.clear()
    push(mine, "me/new", token=OWNER, tag="v1")
    files, tags = state(hub)
    assert tags == {"v1": files} and len(hub.repos["model", "me/new"].commits) == 2
    assert zoo.load("hub:me/new@v1").verify() == 0.0


# ---------------------------------------------------------------- cards


def test_a_card_edited_on_the_hub_keeps_its_text(hub, mine):
    push(mine, "me/new", token=OWNER)
    repo = hub.repos["model", "me/new"]
    text = "---\nlanguage: en\ntags: [mine, diffusion]\nlibrary_name: other\n---\r\n# My own words  \n\nkept\r\n"
    repo.commit(repo.files | {"README.md": text.encode()})
    changed = {**EVALUATION, "metrics": {"frechet": {"value": 0.25, "better": "lower"}}}
    (mine / "evaluation.json").write_text(json.dumps(changed))
    push(mine, "me/new", token=OWNER)
    new = repo.files["README.md"].decode()
    assert new.endswith("---\n# My own words  \n\nkept\r\n") and "zoo-card" not in new
    data = huggingface_hub.ModelCard(new).data.to_dict()
    assert data["language"] == "en" and data["tags"] == ["diffusion", "image", "mine"] and data["library_name"] == "zoo"
    assert data["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.25
    count = len(repo.commits)
    push(mine, "me/new", token=OWNER)
    assert len(repo.commits) == count


def test_a_card_edited_in_the_folder_keeps_its_text(hub, mine):
    text = (mine / "README.md").read_text().replace("Class-conditional", "My")
    (mine / "README.md").write_text(text)
    push(mine, "me/new", token=OWNER)
    new = hub.repos["model", "me/new"].files["README.md"].decode()
    assert card.split(new)[1] == card.split(text)[1] and "model-index" in new
    zoo.load(mine).save_pretrained(mine)
    assert card.split((mine / "README.md").read_text())[1] == card.split(text)[1]


def test_a_card_that_nobody_edited_is_renewed(hub, mine):
    push(mine, "me/new", token=OWNER)
    (mine / "evaluation.json").unlink()
    push(mine, "me/new", token=OWNER)
    files = hub.repos["model", "me/new"].files
    assert b"Quality" not in files["README.md"] and "evaluation.json" not in files


@pytest.mark.parametrize(("front", "error", "message"), [
    ("a: [", ConfigError, "not YAML"),
    ("- a", ConfigError, "key: value"),
    ("license: 'my own'", HubError, "license"),
])  # fmt: skip
def test_a_card_with_bad_metadata_is_refused_before_anything_is_pushed(hub, mine, front, error, message):
    recipe = json.loads((mine / "config.json").read_text())
    recipe["recipe"]["licence"] = ""  # so that the card's own is kept
    reseal(mine / "config.json", recipe=recipe["recipe"])
    (mine / "README.md").write_text(f"---\n{front}\n---\nmy words")
    with pytest.raises(error, match=message):
        push(mine, "me/new", token=OWNER)
    assert len(hub.repos["model", "me/new"].commits) == 1 and not hub.cdn.log


# ---------------------------------------------------------------- publish


@pytest.fixture
def packaged(mine, tmp_path, monkeypatch):
    root = tmp_path / "checkpoints"
    for name in ("fashion-ddpm", "fashion-dit"):
        shutil.copytree(mine, root / "image" / name)
    monkeypatch.setattr("zoo.contract.registry.CHECKPOINTS", root)
    return root


@pytest.mark.slow
def test_publish_is_idempotent(hub, packaged):
    done = dict(publish("me", token=OWNER))
    assert list(done) == ["image/fashion-ddpm", "image/fashion-dit"]
    for name in done:
        repo = hub.repos["model", f"me/{name.replace('/', '-')}"]
        assert repo.tags == {f"v{zoo.__version__}": repo.branches["main"]} and "samples.png" in repo.files
    repo.commit(repo.files | {"README.md": b"my own words"})  # edited on the Hub: its metadata are renewed, once
    hub.log.clear()
    commits = {k: len(r.commits) for k, r in hub.repos.items()}
    with pytest.raises(HubError, match="Tags are not moved"):
        list(publish("me", token=OWNER))
    list(publish("me", token=OWNER, tag=None))
    again = dict(publish("me", token=OWNER))
    assert all(p.changed == () for p in again.values())
    assert {k[1]: len(r.commits) - commits[k] for k, r in hub.repos.items()} == {
        "me/image-fashion-ddpm": 0, "me/image-fashion-dit": 1,
    }  # fmt: skip


@pytest.mark.slow
def test_publish_goes_on_where_it_was_interrupted(hub, packaged, monkeypatch):
    monkeypatch.setenv("ZOO_HUB_NAMESPACE", "me")
    hub.fault("fashion-dit/commit/", "status", method="POST", status=418)
    with pytest.raises(HubError, match="me/image-fashion-dit"):
        list(publish(token=OWNER))
    done = dict(publish(token=OWNER))
    assert [bool(p.changed) for p in done.values()] == [False, True]
    assert dict(publish(token=OWNER, pattern="nothing*")) == {}


# ---------------------------------------------------------------- small parts


def test_the_command_of_a_run(tmp_path, model):
    import safetensors.torch

    recipe = model.recipe.override({"training.lr": 5e-4})
    assert training_command(recipe, tmp_path) is None
    for other in (b"", b"GIF89a" * 100, b"\x80\x04N.", safetensors.torch.save({"a": torch.ones(1)})):
        (tmp_path / "checkpoint.safetensors").write_bytes(other)
        assert training_command(recipe, tmp_path) is None, "it is not a run of zoo"
    facts = {"zoo": json.dumps({"steps": 30, "seed": 4})}
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "checkpoint.safetensors", facts)
    command = training_command(recipe, tmp_path)
    assert command.startswith("zoo train image/fashion-ddpm --data DATA --out RUN --steps 30 --seed 4 --set ")
    recipe = recipe.model_copy(update={"data": "hub:me/pets@abc, split 'train', 3 rows"})
    assert "--data hub:me/pets@abc --out" in training_command(recipe, tmp_path)
    assert "--set training.lr=0.0005" in command and "--set net.channels=16" in command and "sampling" not in command
    frozen = training_command(recipe.override({"training.freeze": ["net.down.*", "embed"]}), tmp_path)
    assert frozen.endswith("--freeze 'net.down.*' --freeze embed")


def test_pushed_says_what_it_did(hub, mine):
    done = push(mine, "me/new", token=OWNER)
    assert str(done) == f"hub:me/new: 6 files changed, commit {done.commit[:12]}. {hub.url}/me/new"
