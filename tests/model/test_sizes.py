"""Samples of sizes of their own (points, residues), on a domain made here: padding changes nothing."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from zoo.contract.codec import Codec
from zoo.contract.dataset import Batch
from zoo.contract.domain import Domain
from zoo.contract.recipe import DiffusionPart, Recipe, Sampling
from zoo.core import seeds
from zoo.errors import ConfigError, ShapeError
from zoo.model.golden import golden_inputs, golden_output
from zoo.model.model import Model
from zoo.training.objective import Denoise


class Cloud:
    def __init__(self, points):
        self.points = points

    def numpy(self):
        return self.points

    def save(self, path):
        np.save(path, self.points)
        return path

    def plot(self, ax=None):
        return None


class CloudCodec(Codec):
    """Points (N, 2) around zero; 2 to 9 of them, 4 to 6 where nobody asks."""

    shape, size_name = (5, 2), "n_points"

    def sample_size(self, value, rng):
        if value is None:
            return int(torch.randint(4, 7, (), generator=rng))
        if not 2 <= value <= 9:
            raise ConfigError(f"n_points={value}: give 2 to 9.")
        return value

    def encode(self, item, rng=None):
        return torch.as_tensor(item.points if isinstance(item, Cloud) else item, dtype=torch.float32)

    def decode(self, x0, cond):
        return [Cloud(x.numpy()) for x in x0]

    def project(self, x, mask=None):
        if mask is None:
            return x - x.mean(1, keepdim=True)
        keep = mask[..., None]
        return torch.where(keep, x - (x * keep).sum(1, keepdim=True) / keep.sum(1, keepdim=True), 0)


class Net(nn.Module):
    """Each point receives the mean of the real ones; a wrong or missing mask would show."""

    def __init__(self, shape, conditions):
        super().__init__()
        self.mix = nn.Linear(4, 2)

    def forward(self, x_t, t, cond, *, mask=None):
        keep = torch.ones(x_t.shape[:2], dtype=torch.bool) if mask is None else mask
        mean = torch.where(keep[..., None], x_t, 0).sum(1, keepdim=True) / keep.sum(1)[:, None, None]
        return self.mix(torch.cat([x_t, mean.expand_as(x_t) + t[:, None, None] / 1000], 2))


class CloudDomain(Domain):
    name, suffix, denoisers = "clouds", ".npy", {"net": Net}

    def recipes(self):
        return {}

    def codec(self, options):
        return CloudCodec()

    def dataset(self, source, split="train", **options):
        raise NotImplementedError

    def plot(self, samples):
        raise NotImplementedError


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sampling = Sampling(sampler="ddpm", steps=4, clip=3.0)
    recipe = Recipe(name="c", domain="clouds", denoiser="net", sampling=sampling, diffusion=DiffusionPart(prediction="x0"))
    return Model(recipe, CloudDomain())


QUICK: dict[str, Any] = {"seed": 3, "progress": False}


def test_sizes_are_asked_for_or_drawn_by_each_sample(model):
    assert [len(s.points) for s in model.sample(3, n_points=[2, 9, 4], **QUICK)] == [2, 9, 4]
    assert {len(s.points) for s in model.sample(3, n_points=7, **QUICK)} == {7}
    drawn = [len(s.points) for s in model.sample(30, **QUICK)]
    assert set(drawn) == {4, 5, 6}
    assert [len(s.points) for s in model.sample(7, batch_size=2, **QUICK)] == drawn[:7]
    assert [len(s.points) for s in model.sample(2, n_points=[None, 3], **QUICK)] == [drawn[0], 3]


def test_a_sample_is_the_same_alone_and_padded(model):
    together = model.sample(3, n_points=[2, 9, 4], **QUICK)
    apart = model.sample(3, n_points=[2, 9, 4], batch_size=1, **QUICK)
    for a, b in zip(together, apart, strict=True):
        np.testing.assert_allclose(a.points, b.points, atol=1e-5)
        assert abs(a.points.mean(0)).max() < 1e-5, "every sample is projected on its own"
    assert together.tensor.shape == (3, 9, 2) and together.mask.sum(1).tolist() == [2, 9, 4]
    assert not together.tensor[~together.mask].any()


def test_variations_and_completions_have_the_objects_size(model):
    known = Cloud(model.codec.project(torch.randn(1, 8, 2, generator=seeds.generator(0)))[0].numpy())
    assert {len(s.points) for s in model.vary(known, 0.5, n=2, **QUICK)} == {8}
    where = torch.zeros(8, 1, dtype=torch.bool)
    where[:3] = True
    for sample in model.inpaint(known, where, n=2, **QUICK):
        np.testing.assert_allclose(sample.points[:3], known.points[:3], atol=1e-6)
    with pytest.raises(ShapeError, match="give n_points=8"):
        model.vary(known, 0.5, n_points=4)
    with pytest.raises(ShapeError, match="broadcast"):
        model.inpaint(known, torch.zeros(7, 1, dtype=torch.bool))


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "many", 1, 10, [3]])
def test_wrong_sizes_are_refused(model, value):
    with pytest.raises(ConfigError, match="n_points"):
        model.sample(2, n_points=value, **QUICK)


def test_the_loss_divides_by_real_elements_and_the_golden_ignores_padding(model, tmp_path):
    x0 = torch.randn(2, 9, 2, generator=seeds.generator(1))
    mask = torch.arange(9) < torch.tensor([[9], [4]])
    garbage = torch.where(mask[..., None], x0, 7.0)
    losses = [Denoise().loss(model, Batch(x, {}, mask), seeds.generator(2)) for x in (x0, garbage)]
    assert losses[0] == losses[1]
    inputs = golden_inputs(model)
    assert inputs["mask"].sum(1).tolist() == [5, 3]
    assert not golden_output(model, inputs)[~inputs["mask"]].any()
