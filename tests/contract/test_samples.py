"""Samples on a disk that is full or refuses: one error, and no part of a file."""

import os
import resource

import numpy as np
import pytest

from zoo.audio.waveform import Waveform
from zoo.contract.samples import Samples
from zoo.errors import ConfigError, DataError, ResourceError
from zoo.image.codec import ImageSample
from zoo.image.domain import DOMAIN as IMAGES
from zoo.point3d.cloud import PointCloud
from zoo.policy.actions import Actions
from zoo.protein.backbone import Backbone

RNG = np.random.default_rng(0)


def backbone():
    step = np.arange(12)[:, None, None] * np.float32([3.8, 0, 0])
    return Backbone((step + np.float32([[0, 0, 0], [1.4, 0.4, 0], [2.4, -0.5, 0]])).astype(np.float32))


MADE = {
    "a.png": lambda: ImageSample(RNG.integers(0, 256, (64, 64), dtype=np.uint8)),
    "a.wav": lambda: Waveform(RNG.uniform(-0.5, 0.5, 4000).astype(np.float32), 8000),
    "a.flac": lambda: Waveform(RNG.uniform(-0.5, 0.5, 4000).astype(np.float32), 8000),
    "a.ply": lambda: PointCloud.normalised(RNG.normal(size=(500, 3))),
    "a.glb": lambda: PointCloud.normalised(RNG.normal(size=(500, 3))),
    "b.npz": lambda: PointCloud.normalised(RNG.normal(size=(500, 3))),
    "a.npz": lambda: Actions(RNG.normal(size=(300, 2)).astype(np.float32)),
    "a.pdb": backbone,
    "a.cif": backbone,
}


@pytest.fixture
def full_disk():
    """No file of this process grows beyond 1000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def begin():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))

    yield begin
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", MADE)
def test_a_full_disk_is_one_error_and_leaves_what_was_there(tmp_path, full_disk, name):
    sample, path = MADE[name](), tmp_path / name
    assert sample.save(path) == path and path.stat().st_size > 1000
    before = path.read_bytes()
    full_disk()
    with pytest.raises(ResourceError, match="no room on the disk"):
        sample.save(path)
    with pytest.raises(ResourceError):
        sample.save(tmp_path / f"new{path.suffix}")
    assert path.read_bytes() == before and os.listdir(tmp_path) == [name]


def test_samples_and_their_picture_leave_no_part(tmp_path, full_disk):
    samples = Samples.of([MADE["a.png"]() for _ in range(2)], domain=IMAGES)
    full_disk()
    with pytest.raises(ResourceError, match="no room"):
        samples.save(tmp_path / "out")
    with pytest.raises(ResourceError, match="no room"):
        samples.plot(tmp_path / "out" / "samples.png")
    assert os.listdir(tmp_path / "out") == []
    with pytest.raises(ConfigError, match=r"ends in \.png"):
        samples.plot(tmp_path / "samples.what")
    with pytest.raises(DataError, match="there is no folder"):
        samples[0].save(tmp_path / "nowhere" / "a.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot write"):
        samples.plot(tmp_path / "file" / "samples.png")


def test_a_sample_of_another_package_leaves_no_part(tmp_path, full_disk):
    class Theirs(ImageSample):
        def save(self, path):
            path.write_bytes(bytes(5000))
            return path

    samples = Samples.of([Theirs(np.zeros((4, 4), np.uint8))], domain=IMAGES)
    full_disk()
    with pytest.raises(ResourceError, match="no room"):
        samples.save(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_long_text_makes_a_name_that_every_system_takes(tmp_path):
    texts = ["a red cat, " * 300, "\u732b" * 300, "!!!", "a/b\\c:d"]
    grey = [ImageSample(np.full((28, 28), 50 * k, np.uint8)) for k in range(4)]
    samples = Samples.of(grey, domain=IMAGES, conditions={"text": texts, "style": ["noto"] * 4})
    names = [samples.name(i) for i in range(4)]
    assert all(len(name.encode()) <= 160 for name in names) and names[0].startswith("0000-a_red_cat__a_red")
    assert names[2:] == ["0002-noto", "0003-a_b_c_d-noto"]
    assert len(samples.save(tmp_path)) == 4
    picture = samples.plot()
    assert picture.size == (2 * 88, 2 * (88 + 3 * 14)), "two lines of the text and one of the style"
