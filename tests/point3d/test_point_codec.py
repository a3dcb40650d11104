"""The codec of clouds: round trip, augmentation, sizes, refusals; and the model on top: completion, any number of points."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import zoo
from zoo.core import seeds
from zoo.errors import ConfigError, DataError, ShapeError
from zoo.point3d.cloud import PointCloud
from zoo.point3d.codec import FEWEST, MOST, PointCodec

SMALL = {
    "net.dim": 16, "net.width": 16, "net.latents": 4, "net.rounds": 1, "net.inner": 8, "net.heads": 1, "net.emb_dim": 16,
    "codec.points": 128,
}  # fmt: skip
QUICK = {"seed": 0, "steps": 2, "progress": False}


def cloud(n=300, seed=0):
    return PointCloud.normalised(np.random.default_rng(seed).standard_normal((n, 3)) * (1, 0.5, 0.2) + (0, 0.3, 0))


@pytest.fixture(scope="module")
def model():
    made = zoo.create("point3d/shapes-ddpm", **SMALL)
    with torch.no_grad():
        for i, p in enumerate(made.denoiser.parameters()):
            p += 0.05 * torch.randn(p.shape, generator=seeds.generator(i))
    return made


def moved(x, seed=0, **options):
    codec = PointCodec(train_points=len(x), **options)
    return (codec.encode(x, seeds.generator(seed)) * codec.scale).numpy()


def test_there_and_back():
    codec, x = PointCodec(), cloud(500)
    x0 = codec.encode(x)
    assert x0.shape == (500, 3) and x0.dtype == torch.float32
    (again,) = codec.decode(x0[None], {})
    np.testing.assert_allclose(again.points, x.points, rtol=2e-7)


def test_the_scale_is_the_standard_deviation_of_the_data():
    class Two:
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return PointCloud(np.tile([[1.0, 0, 0], [-1, 0, 0]], (40 * (i + 1), 1)) * (i + 1)), {}

    codec = PointCodec()
    codec.fit(Two())
    assert codec.scale.item() == pytest.approx(np.sqrt((1 / 3 + 4 / 3) / 2))


def test_training_takes_other_points_each_time_and_small_clouds_twice():
    x = cloud(300)
    known = {tuple(p) for p in x.points.tolist()}
    draws = []
    for seed in range(2):
        codec = PointCodec(train_points=100)
        rows = codec.augment(torch.from_numpy(x.points), 0, seeds.generator(seed))
        draws.append({tuple(p) for p in rows.tolist()})
        assert len(draws[-1]) == 100 and draws[-1] <= known
    assert draws[0] != draws[1]
    many = PointCodec(train_points=700).augment(torch.from_numpy(x.points), 0, seeds.generator(0))
    assert many.shape == (700, 3) and {tuple(p) for p in many.tolist()} == known


def test_a_turn_keeps_heights_and_distances_and_stays_small():
    x = cloud()
    y = moved(x, yaw=0.2)
    order = np.argsort(y[:, 1])
    want = x.points[np.argsort(x.points[:, 1])]
    np.testing.assert_allclose(y[order, 1], want[:, 1], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(y[order], axis=1), np.linalg.norm(want, axis=1), atol=1e-5)
    angles = np.arctan2(y[order, 2], y[order, 0]) - np.arctan2(want[:, 2], want[:, 0])
    turns = (angles + np.pi) % (2 * np.pi) - np.pi
    assert np.ptp(turns) < 1e-3 and 0 < abs(turns[0]) <= 0.2


def test_warped_shapes_keep_their_ends_their_order_and_their_symmetry():
    half = torch.rand(400, 3, generator=seeds.generator(0)) * torch.tensor([1.0, 0.7, 0.4]) - torch.tensor([0.0, 0.3, 0.2])
    x = torch.cat([half, half * torch.tensor([-1.0, 1.0, 1.0])])  # symmetric in x
    codec, places = PointCodec(warp=0.7), []
    for seed in range(20):
        y = codec.proportioned(x, seeds.generator(seed))
        torch.testing.assert_close(y.aminmax(dim=0), x.aminmax(dim=0))
        for axis in range(3):
            assert (y[x[:, axis].argsort(), axis].diff() >= -1e-6).all(), "no point passes another"
        torch.testing.assert_close(y[:400] * torch.tensor([-1.0, 1.0, 1.0]), y[400:], atol=1e-5, rtol=0)
        places.append(y[x[:, 1].argsort()[400], 1])
    assert torch.stack(places).std() > 0.05, "the middle is elsewhere each time"


def test_training_warps_and_nothing_else_does():
    x = cloud()
    plain, warped = (PointCodec(warp=w).encode(x, seeds.generator(0)) for w in (0.0, 0.3))
    assert plain.shape == warped.shape and not torch.allclose(plain, warped, atol=0.01)
    assert torch.equal(PointCodec(warp=0.3).encode(x), PointCodec().encode(x))


def test_stretch_and_mirror_do_what_they_say():
    x, flips = cloud(), set()
    for seed in range(20):
        y = moved(x, seed, stretch=0.2, mirror=True)
        order, want = np.argsort(y[:, 1]), x.points[np.argsort(x.points[:, 1])]
        ratio = (y[order] / want)[np.abs(want).min(1) > 0.02]
        assert np.ptp(ratio, axis=0).max() < 1e-3 and (abs(abs(ratio) - 1) < 0.201).all()
        flips.add(tuple(np.sign(ratio[0]).astype(int)))
    flip = tuple(-1 if a == x.mirror_axis else 1 for a in range(3))
    assert flips == {(1, 1, 1), flip}


def test_ragged_clouds_are_padded_with_a_mask():
    codec = PointCodec()
    batch = codec.batch([(cloud(100), {"label": 1}), (cloud(130), {"label": -1})])
    assert (
        batch.x0.shape == (2, 130, 3) and batch.mask.sum(1).tolist() == [100, 130] and batch.cond["label"].tolist() == [1, -1]
    )
    assert not batch.x0[0, 100:].any()
    assert codec.batch([(cloud(100), {}), (cloud(100), {})]).mask is None


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (np.zeros((100, 3)), "PointCloud"),
        (cloud(FEWEST - 1), f"{FEWEST - 1} points.*{FEWEST}"),
        (PointCloud(cloud(100).points * 40), "normalised"),
    ],
)
def test_what_cannot_be_encoded_is_said(item, message):
    with pytest.raises(DataError, match=message):
        PointCodec().encode(item)


@pytest.mark.parametrize(
    "options",
    [{"points": 0}, {"points": 2.5}, {"train_points": 3}, {"yaw": -1.0}, {"stretch": 1.0}, {"warp": 0.8}, {"colour": 1}],
)
def test_a_codec_that_cannot_be_is_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        zoo.create("point3d/shapes-ddpm", **{f"codec.{k}": v for k, v in options.items()})


# ---------------------------------------------------------------- models


def test_any_number_of_points_and_the_same_sample_in_any_company(model):
    samples = model.sample(3, n_points=[64, 200, 128], label="chair", **QUICK)
    assert [len(s) for s in samples] == [64, 200, 128]
    alone = model.sample(2, n_points=[64, 200], batch_size=1, label="chair", **QUICK)
    np.testing.assert_allclose(alone[1].points, samples[1].points, atol=1e-5)
    assert len(model.sample(1, **QUICK)[0]) == 128
    for wrong in (0, -5, FEWEST - 1, MOST + 1, 10.0, "many"):
        with pytest.raises(ConfigError, match="n_points"):
            model.sample(1, n_points=wrong, **QUICK)
    with pytest.raises(ConfigError, match=r"'chiar'.*'chair'"):
        model.sample(1, label="chiar", **QUICK)


def test_completion_keeps_what_is_known(model):
    known = cloud(200)
    keep = torch.arange(200) % 2 == 0
    for sample in model.inpaint(known, keep=keep, n=2, label="chair", **QUICK):
        np.testing.assert_allclose(sample.points[keep], known.points[keep], rtol=2e-7)
        assert len(sample) == 200 and not np.isclose(sample.points[~keep], known.points[~keep]).all(1).any()
    same = model.inpaint(known, keep[:, None], n=2, label="chair", **QUICK)
    assert torch.equal(same.tensor, model.inpaint(known, keep=keep.numpy(), n=2, label="chair", **QUICK).tensor)
    more = model.inpaint(cloud(100), **QUICK)[0]  # what a partial cloud lacks up to the usual number
    assert len(more) == 128 and np.allclose(more.points[:100], cloud(100).points, rtol=2e-7)
    assert len(model.inpaint(known, n_points=260, **QUICK)[0]) == 260


def test_completions_that_cannot_be_are_refused(model):
    known, keep = cloud(200), torch.arange(200) < 100
    for mask in (keep[:50], keep[:, None], keep.float()):
        with pytest.raises(ShapeError, match="keep"):
            model.inpaint(known, keep=mask)
    with pytest.raises(DataError, match=f"3 points are kept; at least {FEWEST}"):
        model.inpaint(known, keep=torch.arange(200) < 3)
    with pytest.raises(DataError, match="20 points"):
        model.inpaint(cloud(20))
    for arguments in ({"keep": keep | ~keep}, {"n_points": 150}, {"n_points": 200}, {}):
        with pytest.raises(ConfigError, match="nothing to make"):
            model.inpaint(known, **arguments)
    with pytest.raises(ConfigError, match="one of them"):
        model.inpaint(known, keep[:, None], keep=keep)


@pytest.mark.slow
def test_four_times_the_points_cost_less_than_five_times_as_much():
    net, cost = zoo.create("point3d/shapes-ddpm").denoiser.to("meta"), []
    for n in (2048, 8192):
        with torch.no_grad(), torch.device("meta"), FlopCounterMode(display=False) as counter:
            net(torch.zeros(1, n, 3), torch.zeros(1), {"label": torch.zeros(1, dtype=torch.long)})
        cost.append(counter.get_total_flops())
    assert cost[1] < 5 * cost[0]
