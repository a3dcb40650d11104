"""Trust in a model folder: hashes, sizes before memory, strict JSON and tensors, saves that are whole or not there."""

import contextlib
import json
import os
import random
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import zoo
from zoo import disk, files
from zoo.contract.registry import CHECKPOINTS
from zoo.disk import parse_json
from zoo.errors import CheckpointError, ResourceError
from zoo.model import checkpoint

SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}
PACKAGED = sorted(p.parent for name in ("config.json", "judge.json") for p in CHECKPOINTS.glob(f"*/*/{name}"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    torch.manual_seed(0)
    folder = zoo.create("image/fashion-ddpm", **SMALL).save_pretrained(tmp_path_factory.mktemp("m"))
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture
def folder(whole, tmp_path):
    for name, data in whole.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


# ---------------------------------------------------------------- hashes


@pytest.mark.parametrize("folder", PACKAGED, ids=lambda p: p.name)
def test_what_is_packaged_carries_its_hashes(folder):
    name = "config.json" if (folder / "config.json").exists() else "judge.json"
    data, hashes = files.read_sealed(folder / name, 2)
    assert data["format_version"] == 2
    for other, digest in hashes.items():
        files.check_hash(folder / other, digest)


def notices(folder: Path) -> None:
    """What `load` checks before it builds anything."""
    files.load_shapes(folder / files.WEIGHTS)
    checkpoint.check_files(folder, checkpoint.read_config(folder))


@pytest.mark.parametrize("name", [files.WEIGHTS, files.GOLDEN, files.CONFIG])
def test_any_flipped_bit_is_an_error(folder, whole, name):
    rng, data = random.Random(0), whole[name]
    everywhere = [*range(min(len(data), 40)), *(rng.randrange(len(data)) for _ in range(60))]
    for place in everywhere:
        changed = bytearray(data)
        changed[place] ^= 1 << rng.randrange(8)
        (folder / name).write_bytes(changed)
        with pytest.raises(CheckpointError):
            notices(folder)
    (folder / name).write_bytes(data)
    notices(folder)
    for change in (data[:-1], data + b" ", b"", data + data):
        (folder / name).write_bytes(change)
        with pytest.raises(CheckpointError):
            zoo.load(folder)


def test_a_golden_file_that_is_gone_is_noticed_at_load(folder):
    (folder / files.GOLDEN).unlink()
    with pytest.raises(CheckpointError, match=r"golden.safetensors is missing"):
        zoo.load(folder)


@pytest.mark.parametrize("change", [
    lambda t: t + " ", lambda t: t.replace("\n", "\r\n"), lambda t: json.dumps(json.loads(t)),
    lambda t: t.replace('"format_version": 2', '"format_version": 2, "format_version": 2'),
    lambda t: t.replace("fashion", "f\\u0061shion"), lambda t: t.replace('"format_version": 2', '"format_version": 1'),
    lambda t: t.replace('"format_version": 2', '"format_version": true'),
    lambda t: t.replace('"format_version": 2', '"format_version": 2.0'),
    lambda t: t.replace('"format_version": 2', '"format_version": 0'),
    lambda t: t.replace('"sha256"', '"sha255"'), lambda t: t.replace('"sha256": {', '"sha256": {"x": "y",'),
])  # fmt: skip
def test_a_config_of_other_bytes_is_refused_though_it_means_the_same(folder, change):
    path = folder / files.CONFIG
    text = path.read_text()
    path.write_bytes(change(text).encode())
    assert path.read_bytes() != text.encode()
    with pytest.raises(CheckpointError):
        zoo.load(folder)


def test_format_1_still_reads_and_is_sealed_on_purpose(folder):
    config = json.loads((folder / files.CONFIG).read_text())
    del config["sha256"]
    (folder / files.CONFIG).write_text(json.dumps(config | {"format_version": 1}))
    assert zoo.load(folder).verify() == 0.0
    files.reseal(folder / files.CONFIG, checkpoint.HASHED, format_version=2)
    assert json.loads((folder / files.CONFIG).read_text()) == config | {
        "sha256": {files.CONFIG: files.read_json(folder / files.CONFIG)["sha256"][files.CONFIG]}
        | {n: files.hash_of(folder / n) for n in checkpoint.HASHED}
    }
    assert zoo.load(folder).verify() == 0.0


# ---------------------------------------------------------------- strict JSON and tensors


@pytest.mark.parametrize("text", [
    "[" * 100_000, '{"a":' * 100_000, '{"a": 1, "a": 2}', '{"a": NaN}', '{"a": Infinity}', '{"a": 1e999}', '{"a": -1e999}',
    '{"a": ' + "9" * 5000 + "}", '{"a": "\\ud800"}', b'{"a": "\xff"}', b"\xff\xfe{\x00}\x00", "", "nul", '{"a": 1} x',
    b"\xef\xbb\xbf{}",
])  # fmt: skip
def test_odd_json_is_one_error(text):
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        parse_json(text, "it")


def test_odd_json_in_a_folder_is_one_error(folder):
    for text in ("[" * 100_000, "[]", "5", '"a"', "null", '{"format_version": 2, "recipe": 5}', '{"recipe": {}}'):
        (folder / files.CONFIG).write_text(text)
        with pytest.raises(CheckpointError):
            zoo.load(folder)


KEY = "denoiser.net.exit.bias"


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int32, torch.bool, torch.complex64])
def test_weights_of_another_kind_of_number_are_refused(folder, dtype):
    tensors = files.load_tensors(folder / files.WEIGHTS)
    tensors[KEY] = tensors[KEY].to(dtype)
    save_file(tensors, folder / files.WEIGHTS)
    files.reseal(folder / files.CONFIG)
    with pytest.raises(CheckpointError, match=r"exit.bias has dtype .*, the model needs float32"):
        zoo.load(folder)


def test_a_double_that_no_float_holds_is_not_finite(folder):
    tensors = files.load_tensors(folder / files.WEIGHTS)
    tensors[KEY] = torch.full_like(tensors[KEY], 1e300, dtype=torch.float64)
    save_file(tensors, folder / files.WEIGHTS)
    files.reseal(folder / files.CONFIG)
    with pytest.raises(CheckpointError, match="not finite"):
        zoo.load(folder)


def test_large_finite_weights_are_finite(tmp_path):
    module = torch.nn.Linear(4, 1)
    files.load_strict(module, {"weight": torch.full((1, 4), 3e38), "bias": torch.zeros(1)}, tmp_path)
    assert (module.weight == 3e38).all(), "their sum is not, they are"


@pytest.mark.parametrize("change", [{"x_t": torch.zeros(2, 1, 27, 28)}, {"t": torch.zeros(3)}, {"label": torch.zeros(2)}])
def test_a_golden_file_of_another_model_is_named(folder, change):
    stored = files.load_tensors(folder / files.GOLDEN)
    change = {("cond.label" if k == "label" else k): v for k, v in change.items()}
    save_file(stored | change, folder / files.GOLDEN)
    files.reseal(folder / files.CONFIG)
    with pytest.raises(CheckpointError, match="does not fit"):
        zoo.load(folder).verify()


# ---------------------------------------------------------------- sizes before memory


@pytest.mark.parametrize("net", [
    {"blocks": 10**7}, {"blocks": 10**12}, {"channels": 10**6}, {"channels": 10**9}, {"emb_dim": 10**9}, {"channels": 10**30},
    {"blocks": -1}, {"channels": 0}, {"channels": "many"}, {"multipliers": [10**6]}, {"multipliers": []}, {"patch": 10**6},
    {"multipliers": [1] * 10**4, "attention": [False] * 10**4},
])  # fmt: skip
def test_a_net_that_its_file_cannot_be_for_is_refused_before_it_is_built(folder, net):
    recipe = files.read_json(folder / files.CONFIG)["recipe"]
    recipe["net"] |= net
    files.reseal(folder / files.CONFIG, recipe=recipe)
    before, start = peak(), time.process_time()
    with pytest.raises(zoo.ZooError):
        zoo.load(folder)
    assert peak() - before < 300 << 20
    assert time.process_time() - start < 5


def peak() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_what_is_built_outside_of_a_load_has_no_limit(folder):
    recipe = files.read_json(folder / files.CONFIG)["recipe"]
    files.reseal(folder / files.CONFIG, recipe=recipe | {"net": recipe["net"] | {"channels": 10**6}})
    with pytest.raises(CheckpointError):
        zoo.load(folder)
    net = torch.nn.Linear(5000, 5000)
    assert net.weight.std() > 0, "and first values are drawn again"


def test_a_header_that_no_model_needs_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_HEADER", 1000)
    path = tmp_path / "a.safetensors"
    files.save_tensors(path, {"a": torch.ones(1)}, {"note": "x" * 2000})
    with pytest.raises(CheckpointError, match="header"):
        files.load_tensors(path)


# ---------------------------------------------------------------- all or nothing


@pytest.mark.parametrize(("call", "places"), [("rename", [0]), ("replace", [0, 3, 4, 5, 7])])
def test_a_save_that_is_killed_anywhere_leaves_the_old_model_or_the_new_one(folder, monkeypatch, call, places):
    class Killed(BaseException):
        """As SIGKILL: nothing after it is done."""

    torch.manual_seed(1)
    model = zoo.create("image/fashion-ddpm", **SMALL)
    before, new = contents(folder), contents(model.save_pretrained(folder / "elsewhere"))
    del before["README.md"], new["README.md"]  # a card says where its folder is
    for path in (folder / "elsewhere").iterdir():
        path.unlink()
    (folder / "elsewhere").rmdir()
    monkeypatch.setattr(disk.shutil, "rmtree", lambda *a, **k: None)  # a killed process cleans nothing up
    seen = set()
    for k in places:
        for path in folder.iterdir():
            if path.is_file():
                path.unlink()
        for name, data in before.items():
            (folder / name).write_bytes(data)
        real, calls = getattr(os, call), []

        def dying(a, b, real=real, calls=calls, k=k):
            calls.append(a)
            if len(calls) == k + 1:
                raise Killed
            real(a, b)

        monkeypatch.setattr(os, call, dying)
        with contextlib.suppress(Killed):
            model.save_pretrained(folder)
        monkeypatch.setattr(os, call, real)
        notices(folder)
        found = {k: v for k, v in contents_of_files(folder).items() if k in before}
        assert found in (before, new)
        seen.add(found == new)
    assert seen == {True, False} or call == "rename"
    monkeypatch.undo()
    disk._ours.clear()
    model.save_pretrained(folder)
    assert {k: v for k, v in contents(folder).items() if k != "README.md"} == new, "what killed saves left is cleared"


def contents_of_files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_what_another_live_process_writes_is_left_alone(folder):
    host = disk.host_name()
    live, dead = folder / f".zoo-tmp-{host}-1-abc", folder / f".zoo-tmp-{host}-99999999-abc.png"
    other = folder / ".zoo-tmp-00000000-99999999-abc"
    for path in (live, dead, other):
        path.write_bytes(b"part")
    files.clear_leftovers(folder)
    assert live.exists() and other.exists() and not dead.exists()


def test_a_whole_save_in_a_folder_that_cannot_be_written_is_told(folder, monkeypatch):
    (folder / files.SAVED).mkdir()
    (folder / files.SAVED / "README.md").write_text("new")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda a, b: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        with pytest.raises(ResourceError, match="saved whole"):
            zoo.load(folder)
    zoo.load(folder)
    assert (folder / "README.md").read_text() == "new" and not (folder / files.SAVED).exists()


def test_a_model_is_read_of_one_save_while_another_process_saves(folder, monkeypatch):
    torch.manual_seed(1)
    other, real, calls = zoo.create("image/fashion-ddpm", **SMALL), checkpoint.check_files, []

    def saved_meanwhile(*arguments):
        calls.append(1)
        if len(calls) == 1:
            other.save_pretrained(folder)
        real(*arguments)

    monkeypatch.setattr(checkpoint, "check_files", saved_meanwhile)
    model = zoo.load(folder)
    assert len(calls) == 2
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


# ---------------------------------------------------------------- compiled nets


class Compiled(torch.nn.Module):
    """As `torch.compile` wraps a net: its parameters get a prefix."""

    def __init__(self, net):
        super().__init__()
        self._orig_mod = net

    def forward(self, *args, **kwargs):
        return self._orig_mod(*args, **kwargs)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    "compiled", [Compiled, pytest.param(lambda m: torch.compile(m, backend="eager"), marks=pytest.mark.slow)]
)
def test_a_compiled_denoiser_saves_what_loads(folder, tmp_path, half, compiled):
    model = zoo.load(folder)
    model.denoiser = compiled(model.denoiser)
    assert any("_orig_mod" in k for k in model.state_dict())
    again = zoo.load(model.save_pretrained(tmp_path / "compiled", half=half))
    assert again.verify() < 1e-3 and not any("_orig_mod" in k for k in again.state_dict())
    checkpoint.fill(model, tmp_path / "compiled")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
@pytest.mark.parametrize("what", ["a pipe", "a device"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "golden.safetensors", "evaluation.json"])
def test_what_is_no_file_is_refused_and_not_waited_for(folder, name, what):
    (folder / name).unlink(missing_ok=True)
    if what == "a pipe":  # whose reader waits for a writer
        os.mkfifo(folder / name)
    else:  # which has no end
        (folder / name).symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match=name):
        zoo.info(str(folder)) if name == "evaluation.json" else zoo.load(folder)


def test_a_save_that_is_a_link_moves_nothing(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "letter.txt").write_text("mine")
    (folder / disk.SAVED).symlink_to(elsewhere)
    with pytest.raises(CheckpointError, match="is a link"):
        zoo.load(folder)
    assert [p.name for p in elsewhere.iterdir()] == ["letter.txt"]
    with pytest.raises(CheckpointError, match="is a link"):
        zoo.create("image/fashion-ddpm", **SMALL).save_pretrained(folder)


@pytest.mark.parametrize("path", [None, 3, b"x", "a\0b", ["x"]])
def test_what_is_no_path_is_named(folder, path):
    model = zoo.load(folder)
    samples = model.sample(1, steps=1, seed=0, progress=False)
    for write in (model.save_pretrained, samples.save, samples.plot):
        if path is not None or write != samples.plot:  # which then only draws
            with pytest.raises(zoo.errors.ConfigError, match="give a path"):
                write(path)
    with pytest.raises(zoo.errors.ResourceError, match="cannot write"):
        samples.save("a" * 300)
