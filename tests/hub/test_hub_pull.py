"""Pulling: one revision, every hash checked, every failure one clear error, nothing foreign touched."""

import json
import os
import shutil
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.utils
import pytest
import torch
from hubserver import OTHER, OWNER, READER, equal

import zoo
from zoo.disk import new_folder, settle
from zoo.errors import CheckpointError, HubError, UnknownModelError
from zoo.hub import client
from zoo.hub.address import NAMESPACE, Address, allowed

SECRET = "hf_stale0000secret"


def cached(hub) -> list[Path]:
    """The files of content in the cache, also unfinished ones."""
    return [p for p in Path(huggingface_hub.constants.HF_HUB_CACHE).rglob("*") if p.is_file() and "blobs" in p.parts]


# ---------------------------------------------------------------- the way that works


def test_a_pulled_model_is_the_same(repo, hub, model):
    got = zoo.load("hub:me/m")
    assert equal(got, model) and got.verify() == 0.0
    a, b = (m.sample(2, seed=3, label="bag").tensor for m in (got, model))
    assert torch.equal(a, b)


def test_one_revision_is_asked_for_once_and_used_for_every_file(repo, hub, model):
    other = dict.fromkeys(repo.files, b"{}")
    hub.fault("config.json", "status", times=1)  # the branch moves while a file is tried again
    real = hub.log

    class Log(list):
        def append(self, seen):
            if "config.json" in seen.path and len(repo.commits) == 1:
                repo.commit(other)
            real.append(seen)

    hub.log = Log()
    assert equal(zoo.load("hub:me/m"), model)
    hub.log = real
    assert [p for p in hub.paths() if p.startswith("/api")] == ["/api/models/me/m"]
    assert {p.split("/resolve/")[1].split("/")[0] for p in hub.paths() if "resolve" in p} == {repo.commits[0][0]}


def test_a_branch_a_tag_and_a_commit(repo, hub, files, model):
    first = repo.commits[0][0]
    repo.tags["v1.0"] = repo.branches["old/one"] = first
    repo.commit({k: v for k, v in files.items() if k != "golden.safetensors"})
    for revision in ("v1.0", "old/one", first):
        assert zoo.load(f"hub:me/m@{revision}").verify() == 0.0
    with pytest.raises(CheckpointError, match=r"golden.safetensors is missing"):
        zoo.load("hub:me/m").verify()


def test_a_cached_pinned_load_makes_no_request(repo, hub, model):
    address = f"hub:me/m@{repo.commits[0][0]}"
    zoo.load("hub:me/m")
    hub.log.clear()
    assert equal(zoo.load(address), model)
    assert equal(zoo.load("hub:me/m", local_files_only=True), model)
    assert hub.log == []


def test_offline_is_no_request_and_says_what_is_missing(repo, hub, model, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"me/m@main: offline, and not in the cache. Go online once: zoo pull hub:me/m"):
        zoo.load("hub:me/m")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    client.pull("hub:me/m", ())
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.log.clear()
    with pytest.raises(HubError, match=r"cannot fetch golden.safetensors of me/m@main: .*not in the cache"):
        zoo.load("hub:me/m")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    zoo.load("hub:me/m")
    hub.log.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert equal(zoo.load("hub:me/m"), model)
    assert hub.log == []


def test_what_another_tool_fetched_is_used_offline_and_checked(repo, hub, model):
    for name in ("config.json", "model.safetensors", "golden.safetensors", "pytorch_model.bin"):
        path = huggingface_hub.hf_hub_download("me/m", name, endpoint=hub.url)
    assert Path(path).exists()
    assert equal(zoo.load("hub:me/m", local_files_only=True), model)
    weights = Path(path).parent / "model.safetensors"
    weights.resolve().write_bytes(b"\0" + weights.read_bytes()[1:])
    with pytest.raises(HubError, match="damaged in the cache"):
        zoo.load("hub:me/m", local_files_only=True)


def test_the_user_agent_names_zoo(repo, hub):
    zoo.load("hub:me/m")
    assert hub.log and all(f"zoo/{zoo.__version__}" in seen.agent for seen in hub.log)


def test_registry_names_are_looked_for_in_the_namespace(repo, hub, model, files, monkeypatch, tmp_path):
    monkeypatch.setattr("zoo.contract.registry.CHECKPOINTS", tmp_path)
    assert Address.of("image/fashion-ddpm").repo == f"{NAMESPACE}/image-fashion-ddpm"
    with pytest.raises(HubError, match=f"no packaged weights.*{NAMESPACE}/image-fashion-ddpm.*zoo train image/fashion-ddpm"):
        zoo.load("image/fashion-ddpm")
    monkeypatch.setenv("ZOO_HUB_NAMESPACE", "me")
    hub.add("me/image-fashion-ddpm", files)
    assert equal(zoo.load("image/fashion-ddpm"), model)
    with pytest.raises(UnknownModelError):
        zoo.load("image/nothing")


# ---------------------------------------------------------------- what is never touched


def test_foreign_files_are_neither_fetched_nor_read(repo, hub, tmp_path):
    folder = client.pull("hub:me/m")
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "golden.safetensors", "model.safetensors"]
    assert not [p for p in hub.paths() if p.endswith((".bin", ".pt", ".pkl", ".py", ".exe"))]
    for name in ("pytorch_model.bin", "x.py"):  # another tool put them there
        (folder / name).write_bytes(b"\x80\x04.")
        os.chmod(folder / name, 0)
    target = client.copy(folder, tmp_path / "out")
    assert sorted(p.name for p in target.iterdir()) == ["README.md", "config.json", "golden.safetensors", "model.safetensors"]
    assert zoo.load(target).verify() == 0.0 and not any(p.is_symlink() for p in target.iterdir())


BAD_NAMES = [
    "../x.json", "/x.json", "a/../../x.json", ".x.json", "a\\..\\x.json", "x.py", "x.json\n", "x", "", "ä.json", "model.bin",
    "a/.git/x.json", "x.json.pkl", "C:x.json",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_are_not_allowed(name):
    assert not allowed(name)


def test_names_that_are():
    assert all(
        map(allowed, ["config.json", "model.safetensors", "README.md", "samples/0001-a_b.wav", "A.PNG", "x.gif", "y.mp4"])
    )


def test_a_hostile_listing_writes_nothing_outside(hub, files, tmp_path):
    hub.add("me/m", files | {"../../evil.json": b"{}", "a/../../evil.json": b"{}"})
    client.pull("hub:me/m")
    assert not list(tmp_path.rglob("evil.json"))


BAD_ADDRESSES = [
    "hub:", "hub:m", "hub:a/b/c", "hub:me/m@", "hub:me/m@../x", "hub:me/m@a b", "hub:.me/m", "hub:me/m.git", "hub:me/a--b",
    "hub:https://x.org/me/m", "hub:me/m@-x",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_ADDRESSES)
def test_an_address_that_is_none(text):
    with pytest.raises(HubError, match=r"hub:owner/name|branch, a tag or a commit"):
        zoo.load(text)


# ---------------------------------------------------------------- whom the server refuses


def test_private(repo, hub, model):
    repo.private = True
    with pytest.raises(HubError, match=r"me/m@main: there is no such repository, or it is private.*token"):
        zoo.load("hub:me/m")
    with pytest.raises(HubError, match=r"me/m@main: there is no such repository, or this token may not read it"):
        zoo.load("hub:me/m", token=READER)
    assert equal(zoo.load("hub:me/m", token=OWNER), model)


def test_missing_repository(hub):
    with pytest.raises(HubError, match=r"me/nothing@v1: there is no such repository"):
        zoo.load("hub:me/nothing@v1")
    assert len(hub.log) == 1, "no second try where it cannot help"


def test_gated(repo, hub, model):
    repo.gated = True
    for token, remedy in ((None, "give the token"), (READER, "no access yet")):
        with pytest.raises(HubError, match=f"me/m@main: the repository is gated. Ask for access at {hub.url}/me/m; .*{remedy}"):
            zoo.load("hub:me/m", token=token)
    assert cached(hub) == []
    assert equal(zoo.load("hub:me/m", token=OWNER), model)


def test_unknown_revision(repo, hub):
    with pytest.raises(HubError, match=rf"me/m@v9: the repository has no revision 'v9'.*{hub.url}/me/m/tree/main"):
        zoo.load("hub:me/m@v9")
    with pytest.raises(HubError, match="no revision"):
        zoo.load(f"hub:me/m@{'0' * 40}")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_file(hub, files, name):
    hub.add("me/m", {k: v for k, v in files.items() if k != name})
    with pytest.raises(HubError, match=f"me/m@main is not a model of zoo: it has no {name}"):
        zoo.load("hub:me/m")
    assert cached(hub) == []


def test_a_file_that_vanishes_is_named(repo, hub):
    hub.fault("model.safetensors", "status", method="HEAD", status=404, X_Error_Code="EntryNotFound")
    with pytest.raises(HubError, match=r"fetch model.safetensors of me/m@main: the file 'model.safetensors' is not there"):
        zoo.load("hub:me/m")


# ---------------------------------------------------------------- tokens


def messages(error: BaseException) -> str:
    """All that a traceback of an error could print."""
    parts = []
    while error is not None:
        parts += [str(error), repr(error), repr(getattr(error, "__dict__", ""))]
        error = error.__cause__ or error.__context__ if not error.__suppress_context__ else error.__cause__
    return "\n".join(parts)


def test_a_stale_token_says_how_to_go_on(repo, hub, model, caplog, capfd):
    with pytest.raises(
        HubError, match=r"me/m@main: the Hub refuses the token.*token=False.*HF_HUB_DISABLE_IMPLICIT_TOKEN"
    ) as caught:
        zoo.load("hub:me/m", token=SECRET)
    assert SECRET not in messages(caught.value) + caplog.text + "".join(capfd.readouterr())
    assert hub.log[0].authorization == f"Bearer {SECRET}"
    hub.log.clear()
    assert equal(zoo.load("hub:me/m", token=False), model)
    assert all(seen.authorization is None for seen in hub.log)


def test_the_user_s_own_token_is_used_unless_refused(repo, hub, monkeypatch):
    repo.private = True
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    monkeypatch.setenv("HF_TOKEN", OWNER)
    zoo.load("hub:me/m")
    assert {seen.authorization for seen in hub.log} == {f"Bearer {OWNER}"}
    hub.log.clear()
    with pytest.raises(HubError, match="private"):
        zoo.load("hub:me/m", token=False)
    assert {seen.authorization for seen in hub.log} == {None}


@pytest.mark.parametrize("kind", ["reset", "status", "truncate"])
def test_no_error_repeats_the_token(repo, hub, kind, caplog, capfd):
    """The server repeats what it got in its error text."""
    caplog.set_level("DEBUG")
    hub.fault("", kind, times=99, status=418)
    with pytest.raises(HubError) as caught:
        zoo.load("hub:me/m", token=OTHER)
    assert OTHER not in messages(caught.value) + caplog.text + "".join(capfd.readouterr())
    assert str(caught.value).startswith("cannot find me/m@main: ")


@pytest.mark.parametrize("token", ["hf_with space", "hf_line\nbreak", "hf_ünïcode", ""])
def test_a_token_that_is_none_is_not_shown(repo, hub, token):
    with pytest.raises(HubError, match="not shown") as caught:
        zoo.load("hub:me/m", token=token)
    assert hub.log == [] and (not token or token not in messages(caught.value))


def test_the_token_does_not_follow_a_redirect_to_another_host(repo, hub, model):
    hub.redirect = repo.private = True
    assert equal(zoo.load("hub:me/m", token=OWNER), model)
    assert hub.cdn.log and all(seen.authorization is None for seen in hub.cdn.log)
    assert hub.cdn.log[0].host.startswith("localhost:") and hub.log[0].host.startswith("127.0.0.1:")
    assert all(OWNER not in json.dumps([s.path, s.query, s.agent, s.body.decode("latin1")]) for s in hub.log + hub.cdn.log)
    assert {seen.authorization for seen in hub.log} == {f"Bearer {OWNER}"}


# ---------------------------------------------------------------- a bad network

TRANSIENT = [
    ("/api/models", "status", 1),
    ("/api/models", "status", 2),
    ("/api/models", "drop", 2),
    ("/api/models", "reset", 1),
    ("/api/models", "truncate", 1),
    ("model.safetensors", "status", 2),
    ("model.safetensors", "reset", 2),
    ("model.safetensors", "truncate", 2),
    ("model.safetensors", "drop", 2),
    ("model.safetensors", "corrupt", 1),
    ("config.json", "corrupt", 1),
    ("config.json", "truncate", 1),
    ("golden.safetensors", "reset", 1),
]


def quick(cases, *chosen: int) -> list:
    """Some cases in the quick suite, the others in the slow one."""
    return [x if i in chosen else pytest.param(*x, marks=pytest.mark.slow) for i, x in enumerate(cases)]


@pytest.mark.parametrize(("pattern", "kind", "times"), quick(TRANSIENT, 1, 7, 10))
def test_a_fault_that_passes_is_survived(repo, hub, model, pattern, kind, times):
    hub.fault(pattern, kind, times=times)
    got = zoo.load("hub:me/m")
    assert equal(got, model) and got.verify() == 0.0
    assert hub.faults[0].times == 0


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_head_that_fails_is_survived(repo, hub, model, status):
    hub.fault("model.safetensors", "status", method="HEAD", times=2, status=status)
    assert equal(zoo.load("hub:me/m"), model)


LASTING = [
    ("/api/models", "status", "cannot find me/m@main: answer 500"),
    ("/api/models", "drop", "cannot find me/m@main: .* cannot be reached"),
    ("/api/models", "reset", "cannot find me/m@main: .* cannot be reached"),
    ("model.safetensors", "status", "cannot fetch model.safetensors of me/m@main: answer 500"),
    ("model.safetensors", "reset", "cannot fetch model.safetensors of me/m@main: .* cannot be reached"),
    ("model.safetensors", "truncate", "cannot fetch model.safetensors of me/m@main: .*(cannot be reached|truncated)"),
    ("model.safetensors", "corrupt", "model.safetensors of me/m@main came damaged twice"),
    ("config.json", "corrupt", "config.json of me/m@main came damaged twice"),
]


@pytest.mark.parametrize(("pattern", "kind", "message"), quick(LASTING, 1, 5, 6))
def test_a_fault_that_lasts_is_one_clear_error_and_leaves_no_part(repo, hub, model, pattern, kind, message):
    hub.fault(pattern, kind, times=999)
    with pytest.raises(HubError, match=message) as caught:
        zoo.load("hub:me/m")
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)
    whole = {len(v): v for v in repo.files.values()}
    assert all(whole.get(p.stat().st_size) == p.read_bytes() for p in cached(hub)), "a part or a wrong file is in the cache"
    hub.faults.clear()
    assert equal(zoo.load("hub:me/m"), model), "and afterwards all is well"


def test_a_lasting_fault_is_given_up_soon(repo, hub):
    hub.fault("/api/models", "status", times=99, status=503)
    with pytest.raises(HubError, match="503"):
        zoo.load("hub:me/m")
    assert len(hub.log) == client.ATTEMPTS and hub.slept == [1.0, 2.0]


def test_the_server_s_wish_to_wait_is_kept(repo, hub):
    hub.fault("/api/models", "status", status=429, Retry_After="7")
    zoo.load("hub:me/m")
    assert 7.0 in hub.slept


def test_a_stalled_download_is_taken_up_again(repo, hub, model, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    hub.fault("model.safetensors", "stall")
    assert equal(zoo.load("hub:me/m"), model)


def test_a_large_download_goes_on_where_it_broke(hub, files, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.add("me/m", files)
    hub.fault("model.safetensors", "truncate")
    client.pull("hub:me/m")
    assert any(seen.range for seen in hub.log)


def test_a_hub_that_is_none(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"me/m@main: http://127.0.0.1:9 cannot be reached \(ConnectError\).*HF_ENDPOINT"):
        zoo.load("hub:me/m")


def test_an_answer_that_is_no_hub_s(repo, hub):
    hub.fault("model.safetensors", "status", method="HEAD", status=200, times=9)
    with pytest.raises(HubError, match=r"model.safetensors of me/m@main: .* does not answer like a Hub"):
        zoo.load("hub:me/m")
    hub.fault("/api/models", "status", status=200)
    with pytest.raises(HubError, match=r"cannot find me/m@main: .* does not answer like a Hub"):
        zoo.load("hub:me/m")


def test_a_damaged_cache_is_fetched_again_online(repo, hub, model):
    zoo.load("hub:me/m")
    for blob in cached(hub):
        blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    with pytest.raises(HubError, match="damaged in the cache"):
        zoo.load(f"hub:me/m@{repo.commits[0][0]}", local_files_only=True)
    assert equal(zoo.load(f"hub:me/m@{repo.commits[0][0]}"), model)


def test_a_full_disk_is_said_so(repo, hub, monkeypatch):
    import errno

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(zoo.ZooError, match="no room on the disk for the cache"):
        zoo.load("hub:me/m")


def test_copy_mixes_with_nothing(repo, hub, tmp_path):
    folder = client.pull("hub:me/m")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "evaluation.json").write_text("{}")
    with pytest.raises(HubError, match="other files"):
        client.copy(folder, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["evaluation.json"]
    client.copy(folder, tmp_path / "new")
    client.copy(folder, tmp_path / "new")  # again is no error
    with pytest.raises(HubError, match="is a file"):
        client.copy(folder, tmp_path / "new" / "config.json")


def test_a_copy_over_an_older_one_is_all_or_nothing(repo, hub, tmp_path, monkeypatch):
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, text in ((old, "1"), (new, "2")):
        (folder / "samples").mkdir(parents=True)
        for name in ("config.json", "README.md", "samples/a.wav"):
            (folder / name).write_text(text)
    target = client.copy(old, tmp_path / "out")

    def read() -> set[str]:
        return {p.read_text() for p in target.rglob("*") if p.is_file()}

    copied, moved = shutil.copyfile, os.replace
    monkeypatch.setattr("zoo.hub.client.shutil.copyfile", lambda a, b: copied(a, b) if "samples" not in str(a) else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        client.copy(new, target)
    monkeypatch.undo()
    assert read() == {"1"} and len(list(target.rglob("*"))) == 4, "what is not whole leaves nothing"

    monkeypatch.setattr("zoo.disk.os.replace", lambda a, b: moved(a, b) if "samples" not in str(a) else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        client.copy(new, target)  # it was whole, and is killed while its files take their places
    monkeypatch.undo()
    settle(target)
    assert read() == {"2"} and len(list(target.rglob("*"))) == 4


@pytest.mark.parametrize(("there", "made"), [("samples/a.wav", "samples"), ("samples", "samples/a.wav")])
def test_a_file_in_place_of_a_folder_is_named_before_anything_changes(tmp_path, there, made):
    for name in ("config.json", there):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")

    def save():
        with new_folder(tmp_path) as new:
            for name in ("config.json", made):
                (new / name).parent.mkdir(exist_ok=True)
                (new / name).write_text("new")

    with pytest.raises(CheckpointError, match=r"samples is a (file|folder) there"):
        save()
    assert {p.read_text() for p in tmp_path.rglob("*") if p.is_file()} == {"old"}


def test_a_copy_after_one_that_was_killed(repo, hub, tmp_path, monkeypatch):
    folder = client.pull("hub:me/m")

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("zoo.disk.shutil.rmtree", lambda *args, **options: None)  # no more is done after a kill
    monkeypatch.setattr("zoo.disk.os.getpid", lambda: 2**22 + 1)
    monkeypatch.setattr("zoo.hub.client.shutil.copyfile", killed)
    with pytest.raises(KeyboardInterrupt):
        client.copy(folder, tmp_path / "out")
    monkeypatch.undo()
    assert any((tmp_path / "out").iterdir())
    client.copy(folder, tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {p.name for p in folder.iterdir()}
