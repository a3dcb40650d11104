"""Folders of files: which are data, of which class and split, and what is said of all others."""

import os
import warnings
from pathlib import Path

import pytest

from zoo.data.folder import Folder, choose, existing, search, split_named
from zoo.errors import DataError


def read(path: Path) -> str:
    """What a file holds; "bad" is unreadable."""
    try:
        text = path.read_text()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    if text == "bad":
        raise DataError(f"{path}: it is bad")
    return text


def make(root: Path, *names: str) -> Path:
    """Files of these names below `root`."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def opened(root: Path, split: str = "train", **options) -> Folder:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Folder(root, split, (".png", ".jpg"), "picture", read, **options)


def taken(folder: Folder) -> list[tuple[str, str | None]]:
    """(path below the folder, class) of each file."""
    return [
        (p.relative_to(folder.folder).as_posix(), folder.labels["label"][n["label"]] if n else None)
        for p, n in ((folder.files[i], folder.given(i)) for i in range(len(folder)))
    ]


# ---------------------------------------------------------------- what is data


def test_hidden_and_system_files_are_never_data_nor_classes(tmp_path):
    make(
        tmp_path, "a/1.png", "b/1.PNG", ".ipynb_checkpoints/1.png", "__MACOSX/a/1.png", "a/._1.png", ".DS_Store", "a/Thumbs.db",
        "@eaDir/1.png", "a/.git/x.png", "$RECYCLE.BIN/9.png", "desktop.ini", "lost+found/1.png", "a/__pycache__/1.png",
    )  # fmt: skip
    folder = opened(tmp_path)
    assert taken(folder) == [("a/1.png", "a"), ("b/1.PNG", "b")]
    assert folder.left_out == {"hidden folder": 2, "hidden file": 2, "system folder": 5, "system file": 2}


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "model.safetensors"])
def test_what_a_run_writes_among_the_data_is_no_data(tmp_path, name):
    make(tmp_path, "1.png", "2.png", f"runs/one/{name}", "runs/one/previews/1.png", "runs/one/previews/2.png")
    folder = opened(tmp_path)
    assert taken(folder) == [("1.png", None), ("2.png", None)]
    assert folder.left_out == {"folder of a model or of its training": 1}
    assert len(opened(tmp_path / "runs/one").files) == 2  # what is asked for by its own name


def test_a_folder_that_is_hidden_itself_is_what_the_user_gave(tmp_path):
    assert taken(opened(make(tmp_path / ".cache", "1.png"))) == [("1.png", None)]


def test_what_is_not_taken_is_counted_by_suffix_in_one_line(tmp_path):
    make(tmp_path, "a/1.png", "a/2.png", "b/1.jpg", "a/x.psd", "b/y.PSD", "b/z.psd", "README", ".git/x", "notes.txt")
    with pytest.warns(UserWarning, match="3 pictures in 2 classes") as caught:
        Folder(tmp_path, "train", (".png", ".jpg"), "picture", read)
    line = f"{tmp_path}: 3 pictures in 2 classes; left out: 3 .psd, 1 .txt, 1 file without suffix, 1 hidden folder"
    assert [str(w.message) for w in caught] == [line]


def test_where_all_is_taken_nothing_is_said(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder = Folder(make(tmp_path, "1.png"), "train", (".png",), "picture", read)
    assert folder.summary == "1 picture" and folder.left_out == {}
    assert folder.origin.startswith("1 picture of the folder")


def test_a_folder_without_data_says_what_it_holds(tmp_path):
    with pytest.raises(DataError, match=r"holds no \.png, \.jpg files; it holds 2 \.psd, 1 hidden folder"):
        opened(make(tmp_path, "a.psd", "b.psd", ".x/1.png"))


# ---------------------------------------------------------------- links


def test_links_to_class_folders_are_followed(tmp_path):
    make(tmp_path / "far", "1.png", "2.png")
    make(tmp_path / "data", "dog/1.png")
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "far")
    assert taken(opened(tmp_path / "data")) == [("cat/1.png", "cat"), ("cat/2.png", "cat"), ("dog/1.png", "dog")]
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert len(opened(tmp_path / "link")) == 3


def test_rings_of_links_end_and_no_folder_comes_twice(tmp_path):
    make(tmp_path, "a/1.png", "b/1.png")
    for name, target in (("a/up", ".."), ("a/itself", "../a"), ("b/other", "../a"), ("A", "b"), ("b/ring", "ring")):
        (tmp_path / name).symlink_to(target)
    folder = opened(tmp_path)
    assert taken(folder) == [("a/1.png", "a"), ("b/1.png", "b")]
    assert folder.left_out == {"link to a folder that is read already": 4, "file without suffix": 1}


def test_many_folders_that_link_to_each_other_are_read_once(tmp_path):
    for i in range(12):  # 12! ways through
        make(tmp_path, f"{i:02}/1.png")
        for k in range(12):
            (tmp_path / f"{i:02}" / f"to{k}").symlink_to(f"../{k:02}")
    assert len(search(tmp_path, lambda p: p.suffix == ".png").files) == 12


def test_a_broken_link_is_unreadable_and_a_pipe_is_not_opened(tmp_path):
    make(tmp_path, "1.png")
    (tmp_path / "2.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "3.png")
    with pytest.raises(DataError, match=r"1 unreadable picture.*2\.png: No such file"):
        opened(tmp_path)
    folder = opened(tmp_path, skip_unreadable=True)
    assert taken(folder) == [("1.png", None)]
    words = "1 picture; left out: 1 file that is a device, pipe or socket, 1 unreadable"
    assert folder.summary == words


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    make(tmp_path, "a/1.png", "b/1.png")
    listed = os.scandir

    def scandir(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"b: cannot be listed \(Permission denied\)"):
        opened(tmp_path)
    assert taken(opened(tmp_path, skip_unreadable=True)) == [("a/1.png", "a")]


# ---------------------------------------------------------------- splits


def test_names_of_splits():
    for split, names in {
        "train": ("train", "Training", "TRAIN", "training_set", "train-data"),
        "validation": ("val", "valid", "validation", "Dev", "validation_set"),
        "test": ("test", "testing", "Test", "test set"),
    }.items():
        assert [split_named(name) for name in names] == [split] * len(names)
    for name in ("trainer", "tests", "cat", "trains", "valley", "device", "", "contest"):
        assert split_named(name) is None


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "val", "test"), ("training", "validation", "testing"), ("Train", "valid", "Test"), ("train", "dev", "test")],
)
def test_folders_of_splits_in_both_orders(tmp_path, first, train, validation, test):
    names = {"train": train, "validation": validation, "test": test}
    for split, name in names.items():
        for kind in ("cat", "dog"):
            make(tmp_path, *(f"{name}/{kind}/{split}.png" if first else f"{kind}/{name}/{split}.png" for _ in "x"))
    for split in names:
        folder = opened(tmp_path, split)
        assert folder.labels == {"label": ["cat", "dog"]}
        assert [(Path(p).name, kind) for p, kind in taken(folder)] == [(f"{split}.png", "cat"), (f"{split}.png", "dog")]
    assert folder.summary == "6 pictures in 2 classes (2 train, 2 validation, 2 test)"


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train2017", "val2017", "test2017"),
        ("train-clean-100", "dev-clean", "test-clean"),
        ("train_images", "valid_images", "test_images"),
        ("images-train", "images-val", "images-test"),
        ("01_Train", "02_Val", "03_Test"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_splits_within_longer_names(tmp_path, train, validation, test, first):
    for split, name in {"train": train, "validation": validation, "test": test}.items():
        make(tmp_path, *(f"{name}/{k}/{split}.png" if first else f"{k}/{name}/{split}.png" for k in ("cat", "dog")))
    for split in ("train", "validation", "test"):
        assert [(Path(p).stem, kind) for p, kind in taken(opened(tmp_path, split))] == [(split, "cat"), (split, "dog")]


@pytest.mark.parametrize(
    "names", [("train-station", "test-tube"), ("trainA", "trainB", "testA", "testB"), ("train", "test-tube")]
)
def test_folders_that_may_be_splits_or_classes_are_refused(tmp_path, names):
    with pytest.raises(DataError, match=f"{names[0]}.* may be splits or classes"):
        opened(make(tmp_path, *(f"{name}/1.png" for name in names)))


@pytest.mark.parametrize("names", [("train-station", "cat"), ("dev-board", "test-board"), ("trainer", "tester")])
def test_classes_with_a_split_in_their_names(tmp_path, names):
    assert opened(make(tmp_path, *(f"{name}/1.png" for name in names))).labels == {"label": sorted(names)}


def test_a_class_has_one_spelling_in_all_splits(tmp_path):
    make(tmp_path, "train/Cat/1.png", "train/dog/1.png", "test/cat/1.png")
    with pytest.raises(DataError, match="'Cat' and 'cat' of different splits differ in case alone"):
        opened(tmp_path)
    make(tmp_path, "train/cat/1.png")
    assert opened(tmp_path).labels == {"label": ["Cat", "cat", "dog"]}, "letters, say, of both cases"


def test_classes_without_training_files_are_said(tmp_path):
    make(tmp_path, "train/cat/1.png", "test/cat/1.png", "test/cow/1.png")
    with pytest.warns(UserWarning, match="no picture to train on in 1 of 2 classes: cow"):
        Folder(tmp_path, "train", (".png",), "picture", read)


def test_splits_without_classes(tmp_path):
    make(tmp_path, "train/1.png", "test/2.png")
    assert taken(opened(tmp_path)) == [("train/1.png", None)] and taken(opened(tmp_path, "test")) == [("test/2.png", None)]
    assert opened(tmp_path).labels == {}


def test_a_split_that_is_missing_is_held_out_of_the_training_files(tmp_path):
    make(tmp_path, *(f"train/{i:02}.png" for i in range(20)))
    held = ["train/09.png", "train/19.png"]
    assert len(opened(tmp_path)) == 18
    assert [[p for p, _ in taken(opened(tmp_path, s))] for s in ("validation", "test")] == [held, held]
    make(tmp_path, "test/1.png")
    assert [p for p, _ in taken(opened(tmp_path, "validation"))] == held
    assert [p for p, _ in taken(opened(tmp_path, "test"))] == ["test/1.png"] and len(opened(tmp_path)) == 18
    make(tmp_path, "val/1.png")
    assert [p for p, _ in taken(opened(tmp_path, "validation"))] == ["val/1.png"] and len(opened(tmp_path)) == 20
    (tmp_path / "test" / "1.png").unlink()
    assert [p for p, _ in taken(opened(tmp_path, "test"))] == ["val/1.png"], "without a test split its place takes validation"


def test_test_files_alone_are_no_training_data(tmp_path):
    with pytest.raises(DataError, match="leaves no readable picture for the split 'train'"):
        opened(make(tmp_path, "test/1.png"))


def test_a_test_split_may_be_without_classes(tmp_path):
    make(tmp_path, "train/cat/1.png", "train/dog/1.png", "test/1.png")
    assert taken(opened(tmp_path)) == [("train/cat/1.png", "cat"), ("train/dog/1.png", "dog")]
    assert taken(opened(tmp_path, "test")) == [("test/1.png", None)]


def test_a_vehicle_is_a_class(tmp_path):
    make(tmp_path / "one", "train/1.png", "bus/1.png")
    assert opened(tmp_path / "one").labels == {"label": ["bus", "train"]}
    make(tmp_path / "two", *(f"{s}/{c}/1.png" for s in ("train", "test") for c in ("train", "bus")))
    assert taken(opened(tmp_path / "two")) == [("train/bus/1.png", "bus"), ("train/train/1.png", "train")]
    make(tmp_path / "three", *(f"{c}/{s}/1.png" for s in ("train", "test") for c in ("train", "bus")))
    assert taken(opened(tmp_path / "three")) == [("bus/train/1.png", "bus"), ("train/train/1.png", "train")]


@pytest.mark.parametrize(
    "names",
    [
        ("train/1.png", "test/1.png", "cat/1.png"),
        ("chair/train/1.png", "chair/test/1.png", "chair/1.png"),
        ("cat/1.png", "test/1.png"),
    ],
)
def test_splits_beside_other_folders_are_refused(tmp_path, names):
    with pytest.raises(DataError, match="mixes folders of splits"):
        opened(make(tmp_path, *names))


def test_loose_files_beside_classes_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"mixes loose pictures \(2\.png, \.\.\.\) and class subfolders\. Use"):
        opened(make(tmp_path / "a", "cat/1.png", "2.png"))
    with pytest.raises(DataError, match="class subfolders in its split 'test'"):
        opened(make(tmp_path / "b", "train/cat/1.png", "test/cat/1.png", "test/2.png"))


def test_a_folder_around_all_classes_is_no_class(tmp_path):
    assert taken(opened(make(tmp_path / "a", "pets/cat/1.png", "pets/dog/1.png")))[0] == ("pets/cat/1.png", "cat")
    make(tmp_path / "b", "pets/train/cat/1.png", "pets/train/dog/1.png", "pets/test/cat/1.png")
    assert [kind for _, kind in taken(opened(tmp_path / "b"))] == ["cat", "dog"]
    assert taken(opened(make(tmp_path / "c", "chair/train/1.png", "chair/test/1.png"))) == [("chair/train/1.png", "chair")]


def test_a_tenth_is_held_out_of_ten_or_more():
    files = [Path(f"{i}.png") for i in range(9)]
    assert choose("train", {}, files) == files and choose("validation", {}, files) == []


# ---------------------------------------------------------------- what is no folder


@pytest.mark.parametrize("source", ["", "  ", None, 7, "~nobody-here/x", "a\0b", "x" * 5000, "gone"])
def test_a_path_that_is_none_says_what_is_meant(source):
    with pytest.raises(DataError, match=r"Give a folder of \.png files\.$"):
        existing(source, "a folder of .png files")


def test_one_file_and_a_broken_link_say_what_is_meant(tmp_path):
    make(tmp_path, "one.png")
    with pytest.raises(DataError, match=r"one\.png is one file: give the folder of \.png, \.jpg files that it lies in"):
        opened(tmp_path / "one.png")
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(DataError, match="link is a link to nothing"):
        opened(tmp_path / "link")


def test_a_class_whose_name_is_not_text_is_refused(tmp_path):
    try:
        os.makedirs(os.fsencode(tmp_path) + b"/caf\xe9")
    except OSError:
        pytest.skip("this disk takes names of UTF-8 only")
    (tmp_path / os.fsdecode(b"caf\xe9") / "1.png").write_text("x")
    with pytest.raises(DataError, match="not UTF-8"):
        opened(tmp_path)
