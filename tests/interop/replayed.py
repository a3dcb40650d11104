"""Policies that sample with noise that another program drew."""

import torch

from zoo.model.plan import Chunk


class Stored:
    """Noise that was drawn elsewhere, in its order, in the place of our own."""

    def __init__(self, noise):
        self.noise, self.generators = list(noise), range(len(noise[0]))

    def normal(self, like, *_):
        return self.noise.pop(0).to(like)


def actions(model, seen, noise):
    """Chunks (n, horizon, Da) in the robot's units."""
    told, rng = model.codec.condition("observation", seen), Stored(noise)
    *_, last = model.run(model.plan(len(told)), Chunk({"observation": told}, rng))
    assert not rng.noise, "as many steps with noise as there"
    return torch.stack([torch.from_numpy(a.values) for a in model.codec.decode(last.x, {})])


def off(found, wanted):
    """The largest difference, as a share of the deviation."""
    assert found.shape == wanted.shape and torch.isfinite(found).all()
    return float((found - wanted).abs().max() / wanted.std())
