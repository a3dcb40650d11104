"""The model folder: strict to read, atomic to write, never a pickle."""

import errno
import json
import os
import pickle
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import zoo
from zoo import files
from zoo.errors import CheckpointError, ResourceError
from zoo.model import checkpoint

SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = zoo.create("image/fashion-ddpm", **SMALL)
    with torch.no_grad():
        for p in model.denoiser.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model


@pytest.fixture
def folder(model, tmp_path):
    return model.save_pretrained(tmp_path / "m")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_folder_holds_four_readable_files(folder):
    assert sorted(contents(folder)) == ["README.md", "config.json", "golden.safetensors", "model.safetensors"]
    assert stat.S_IMODE((folder / "model.safetensors").stat().st_mode) == 0o644
    assert json.loads((folder / "config.json").read_text())["format_version"] == checkpoint.FORMAT_VERSION


def test_saving_is_reproducible(model, folder, monkeypatch, tmp_path):
    assert contents(model.save_pretrained(folder)) == contents(folder)
    before = contents(folder)
    (tmp_path / "elsewhere").mkdir()
    for there in (tmp_path, tmp_path / "elsewhere"):  # a card says where its folder is
        monkeypatch.chdir(there)
        found = contents(model.save_pretrained(Path("again")))
        assert {k: v for k, v in found.items() if k != "README.md"} == {k: v for k, v in before.items() if k != "README.md"}
        assert found == contents(tmp_path / "again")


def test_half_precision_halves_the_file_and_leaves_the_model_alone(model, folder, tmp_path):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    half = model.save_pretrained(tmp_path / "half", half=True)
    assert (half / files.WEIGHTS).stat().st_size < 0.55 * (folder / files.WEIGHTS).stat().st_size
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()), "the live model keeps its own weights"
    again = zoo.load(half)
    assert again.dtype == torch.float32 and again.verify() == 0.0, "the golden output is that of the stored weights"
    for a, b in zip(model.denoiser.parameters(), again.denoiser.parameters(), strict=True):
        assert torch.equal(a.half().float(), b)
    assert any(not torch.equal(a, b) for a, b in zip(model.denoiser.parameters(), again.denoiser.parameters(), strict=True))


def test_verify_notices_one_changed_weight(folder):
    path = folder / files.WEIGHTS
    tensors = files.load_tensors(path)
    tensors["denoiser.net.exit.bias"] += 0.1
    files.save_tensors(path, tensors)
    with pytest.raises(CheckpointError, match="SHA-256"):
        zoo.load(folder)
    files.reseal(folder / files.CONFIG)
    with pytest.raises(CheckpointError, match="golden"):
        zoo.load(folder).verify()


# ---------------------------------------------------------------- what must not be read


def rewrite(folder: Path, change) -> None:
    tensors = files.load_tensors(folder / files.WEIGHTS)
    change(tensors)
    save_file(tensors, folder / files.WEIGHTS)
    files.reseal(folder / files.CONFIG)


def reconfigure(folder: Path, **change) -> None:
    files.reseal(folder / files.CONFIG, **change)


def recipe(folder: Path) -> dict:
    return json.loads((folder / files.CONFIG).read_text())["recipe"]


def truncate(folder: Path) -> None:
    data = (folder / files.WEIGHTS).read_bytes()
    (folder / files.WEIGHTS).write_bytes(data[: len(data) // 2])


KEY = "denoiser.net.exit.weight"
BROKEN = {
    "truncated": (truncate, "truncated"),
    "empty": (lambda f: (f / files.WEIGHTS).write_bytes(b""), "truncated or is not a safetensors"),
    "foreign": (lambda f: (f / files.WEIGHTS).write_bytes(b"GIF89a" * 100), "truncated or is not a safetensors"),
    "pickle": (lambda f: (f / files.WEIGHTS).write_bytes(pickle.dumps({"a": 1})), "is a pickle"),
    "torch.save": (lambda f: torch.save({"a": torch.ones(1)}, f / files.WEIGHTS), "is a pickle"),
    "missing weights": (lambda f: (f / files.WEIGHTS).unlink(), "is missing"),
    "missing key": (lambda f: rewrite(f, lambda t: t.pop(KEY)), "missing net.exit.weight"),
    "extra key": (lambda f: rewrite(f, lambda t: t.update({"denoiser.more": torch.ones(1)})), "unexpected more"),
    "foreign key": (lambda f: rewrite(f, lambda t: t.update(optimizer=torch.ones(1))), "foreign keys: optimizer"),
    "wrong shape": (lambda f: rewrite(f, lambda t: t.update({KEY: t[KEY][:1].clone()})), r"exit.weight has shape \(1, 16"),
    "not finite": (lambda f: rewrite(f, lambda t: t[KEY].fill_(torch.nan)), "not finite"),
    "no config": (lambda f: (f / files.CONFIG).unlink(), "no config.json"),
    "config no JSON": (lambda f: (f / files.CONFIG).write_text("{"), "cannot be read as JSON"),
    "config of others": (lambda f: (f / files.CONFIG).write_text('{"model_type": "bert"}'), "not a zoo config"),
    "newer format": (lambda f: reconfigure(f, format_version=3), "format version 3; this zoo reads up to 2"),
    "foreign recipe": (lambda f: reconfigure(f, recipe={"name": "x"}), "recipe"),
    "other net": (lambda f: reconfigure(f, recipe=recipe(f) | {"net": {}}), "does not fit"),
    "no golden": (lambda f: (f / files.GOLDEN).unlink(), "is missing"),
    "foreign golden": (lambda f: (save_file({"a": torch.ones(1)}, f / files.GOLDEN), reconfigure(f)), "lacks"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_folder_is_one_clear_error(folder, kind):
    change, message = BROKEN[kind]
    change(folder)
    with pytest.raises(zoo.ZooError, match=message) as caught:
        zoo.load(folder).verify()
    assert len(str(caught.value)) < 1500


def test_a_header_whose_length_is_a_pickles_mark_is_read(tmp_path):
    """A header of 128 bytes: the file starts with the byte of a pickle of protocol 2 and later."""
    path, marks = tmp_path / "a.safetensors", set()
    for n in range(1, 80):
        files.save_tensors(path, {"k" * n: torch.ones(1)})
        marks.add(path.read_bytes()[:1])
        assert list(files.load_tensors(path)) == ["k" * n]
    assert b"\x80" in marks


def test_tensors_stay_what_they_are_when_their_file_changes(tmp_path):
    path = tmp_path / "a.safetensors"
    files.save_tensors(path, {"a": torch.ones(3), "b": torch.zeros(0, 2)}, {"note": "x"})
    tensors, note = files.load_tensors_metadata(path)
    with path.open("r+b") as file:
        file.seek(-12, os.SEEK_END)
        file.write(bytes(12))
    assert tensors["a"].tolist() == [1, 1, 1] and tensors["b"].shape == (0, 2) and note == {"note": "x"}
    assert files.load_tensors(path)["a"].tolist() == [0, 0, 0]


def test_the_metadata_alone(tmp_path):
    path = tmp_path / "a.safetensors"
    files.save_tensors(path, {"a": torch.ones(1)}, {"note": "x"})
    assert files.load_metadata(path) == {"note": "x"}
    files.save_tensors(path, {"a": torch.ones(1)})
    assert files.load_metadata(path) == files.load_tensors_metadata(path)[1] == {}


@pytest.mark.parametrize("read", [files.load_tensors, files.load_tensors_metadata, files.load_metadata])
def test_each_way_of_reading_has_one_error(read, tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(CheckpointError, match="is missing"):
        read(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read(tmp_path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointError, match="is a pickle"):
        read(path)
    files.save_tensors(path, {"a": torch.ones(3)}, {"note": "x"})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="truncated or is not a safetensors"):
            read(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(CheckpointError, match="truncated or is not a safetensors"):
        read(path)


def test_no_pickle_runs(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    torch.save(Bomb(), folder / files.WEIGHTS)
    with pytest.raises(CheckpointError):
        zoo.load(folder)
    assert not (tmp_path / "exploded").exists()


# ---------------------------------------------------------------- what must not be half-written


@pytest.mark.parametrize("failing", range(4))
@pytest.mark.parametrize(("number", "message"), [(errno.ENOSPC, "no room on the disk"), (errno.EACCES, "cannot write")])
def test_a_disk_that_fills_up_while_saving_leaves_the_old_model(model, folder, monkeypatch, failing, number, message):
    before = contents(folder)
    with torch.no_grad():
        next(model.denoiser.parameters()).add_(1.0)
    real, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == failing + 1:
            raise OSError(number, os.strerror(number))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(zoo.ZooError, match=message):
        model.save_pretrained(folder)
    assert contents(folder) == before
    monkeypatch.undo()
    model.save_pretrained(folder)
    assert contents(folder) != before


@pytest.mark.slow
def test_a_really_full_disk(tmp_path):
    """On a file system of 2 MB, where that may be mounted; a simulated error is not the real one."""
    import subprocess

    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("mounting needs more rights")
    try:
        with pytest.raises(ResourceError, match="no room on the disk"):
            zoo.create("image/fashion-ddpm").save_pretrained(small / "m")
        assert contents(small) == {}
    finally:
        subprocess.run(["umount", small], check=True)


def test_write_atomic_never_shows_a_part(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_atomic(path, b"old")
    seen = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (seen.append(path.read_bytes()), real(handle)))
    files.write_atomic(path, b"new" * 1000)
    assert seen[0] == b"old", "the old file stands until the new one is on the disk"
    assert path.read_bytes() == b"new" * 1000 and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_file_where_a_folder_must_be(model, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="it is a file"):
        model.save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_json_is_stable_and_refuses_nan():
    assert files.dump_json({"ä": 1}) == '{\n  "ä": 1\n}\n'.encode()
    with pytest.raises(ValueError, match="JSON"):
        files.dump_json({"a": float("nan")})
