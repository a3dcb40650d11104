"""The small inputs on which zoo was wrong, from the folder beside the real data: what each of them is, its README says.

The same kinds are tested with inputs made on the spot beside each reader; these are the files themselves.
"""

from __future__ import annotations

import numpy as np
import pytest

from zoo.audio.data import open_audio
from zoo.errors import ConfigError, DataError
from zoo.image.data import open_images
from zoo.point3d.data import open_clouds, read_shape
from zoo.policy.data import open_episodes
from zoo.protein.motif import read_motif
from zoo.protein.structure import read_structure

pytestmark = [pytest.mark.data, pytest.mark.filterwarnings("ignore::UserWarning")]

WINDOW = {"horizon": 2, "n_obs": 1, "executed": 1}


@pytest.fixture
def cases(zoo_data):
    folder = zoo_data.parent / "cases"
    if not folder.is_dir():
        pytest.skip("there is no folder of cases beside the data")
    return folder


# ---------------------------------------------------------------- pictures


def test_a_turned_picture_is_upright(cases):
    picture, _ = open_images(cases / "image" / "exif")[0]
    assert picture.size == (40, 60)


def test_sixteen_bits_are_a_ramp_from_black_to_white(cases):
    pixels = np.asarray(open_images(cases / "image" / "png16")[0][0]).astype(int)
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert 100 < pixels.mean() < 155, "not clipped to white"


def test_hidden_folders_are_no_classes(cases):
    with pytest.warns(UserWarning, match="left out: 1 hidden folder"):
        assert open_images(cases / "image" / "hiddendir").labels == {"label": ["a", "b"]}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_folders_of_splits_are_splits(cases, split):
    found = open_images(cases / "image" / "trainvaltest", split)
    assert found.labels == {"label": ["cat", "dog"]}
    assert {p.relative_to(cases / "image" / "trainvaltest").parts[0] for p in found.files} == {
        {"validation": "val"}.get(split, split)
    }


def test_every_format_that_pillow_reads_is_read(cases):
    found = open_images(cases / "image" / "mixed_ext")
    assert [p.name for p in found.files] == ["a.bmp", "b.tif", "c.jfif", "d.avif", "good0.png", "good1.png"]


# ---------------------------------------------------------------- sound


def test_channels_that_cancel_are_not_mixed(cases):
    with pytest.warns(UserWarning, match="cancel each other"):
        clip = open_audio(cases / "audio" / "antiphase")[0][0]
    assert float(np.abs(clip.samples).max()) > 0.1


def test_headers_that_lie(cases):
    assert open_audio(cases / "audio" / "hdr_2g")[0][0].samples.shape == (22050,)
    with pytest.raises(DataError, match=r"a\.wav"):
        open_audio(cases / "audio" / "hdr_datashort")


def test_what_is_no_sound_is_named(cases):
    with pytest.warns(UserWarning, match=r"1 \.m4a"):
        found = open_audio(cases / "audio" / "mixed")
    assert [p.name for p in found.files] == ["a.wav", "b.aiff"]


# ---------------------------------------------------------------- shapes and structures


def test_test_shapes_never_train(cases):
    folder = cases / "point3d" / "split_first"
    for split in ("train", "test"):
        there = sorted(p.parent.name for p in (folder / split).rglob("*.off"))
        found = open_clouds(folder, split)
        assert found.labels == {"label": ["chair", "table"]}
        assert len(found.clouds) == len(there), "each split is read from its own folder"


def test_a_draco_part_is_never_dropped(cases):
    with pytest.raises(DataError, match="Draco"):
        read_shape(cases / "point3d" / "draco_mixed.glb")  # its packed bytes are a stub, also for DracoPy


@pytest.mark.parametrize(("name", "residues"), [("hsd.pdb", 100), ("restart_ter.pdb", 200)])
def test_no_name_and_no_number_cuts_a_chain(cases, name, residues):
    assert sum(len(chain.residues) for chain in read_structure(cases / "protein" / name)) == residues


def test_chains_without_a_name_and_with_long_ones_can_be_named(cases):
    assert len(read_motif(f"{cases / 'protein' / 'emptychain.pdb'}:_5-20")) == 16
    assert len(read_motif(f"{cases / 'protein' / 'emptychain.pdb'}:#1/5-20")) == 16
    names = [chain.id for chain in read_structure(cases / "protein" / "longchain.cif")]
    assert any(len(name) > 1 for name in names)
    first = next(chain for chain in read_structure(cases / "protein" / "longchain.cif") if len(chain.id) > 1)
    number = first.residues[0].number
    assert len(read_motif(f"{cases / 'protein' / 'longchain.cif'}:{first.id}/{number}-{number + 9}")) == 10


def test_a_byte_order_mark_is_no_residue_and_a_web_page_no_structure(cases):
    assert read_structure(cases / "protein" / "bom.pdb")
    with pytest.raises(DataError, match="HTML"):
        read_structure(cases / "protein" / "html.pdb")


def test_one_conformation_counts_for_all_atoms_of_a_residue(cases):
    text = (cases / "protein" / "alt_mixed.pdb").read_text().splitlines()
    atoms = [line for line in text if line.startswith("ATOM") and line[12:16].strip() in ("N", "CA", "C") and line[16] != " "]
    shares: dict[tuple[str, str], float] = {}
    for line in atoms:
        key = (line[22:27], line[16])
        shares[key] = shares.get(key, 0.0) + float(line[54:60])
    found = {
        f"{r.number:4d}{r.code or ' '}": r.atoms
        for chain in read_structure(cases / "protein" / "alt_mixed.pdb")
        for r in chain.residues
    }
    for place in {key[0] for key in shares}:
        fuller = max((letter for where, letter in shares if where == place), key=lambda letter: shares[place, letter])
        for k, atom in enumerate(("N", "CA", "C")):
            own = [li for li in atoms if li[22:27] == place and li[12:16].strip() == atom and li[16] == fuller]
            if own:
                np.testing.assert_allclose(found[place][k], [float(own[0][i : i + 8]) for i in (30, 38, 46)], atol=1e-3)


# ---------------------------------------------------------------- robots


@pytest.mark.parametrize("name", ["lr_act1d_scalar", "lr_boolobs", "lr_v30", "constdim.npz"])
def test_recordings_are_read(cases, name):
    found = open_episodes(cases / "policy" / name, **WINDOW)
    assert len(found) > 10
    if name == "lr_act1d_scalar":
        assert found[0][0].shape == (2, 1)


@pytest.mark.parametrize(
    ("name", "what"), [("lr_dupep", "episode 0 is in 2 files"), ("lr_ep1", "1 steps"), ("lr_wrongshape", r"shape \[3\]")]
)
def test_recordings_that_are_wrong_are_refused_by_name(cases, name, what):
    with pytest.raises(DataError, match=what):
        open_episodes(cases / "policy" / name, **WINDOW)


def test_an_episode_of_one_step_is_skipped_on_request(cases):
    with pytest.warns(UserWarning, match="left out"):
        assert len(open_episodes(cases / "policy" / "lr_ep1", **WINDOW, skip_unreadable=True))


def test_robomimic_is_read_or_told(cases):
    try:
        assert len(open_episodes(cases / "policy" / "low_dim.hdf5", **WINDOW))
    except (DataError, ConfigError) as error:
        if "pickle" in str(error):
            raise
