import warnings

import numpy as np
import pytest
import torch
from chains import chain, mirrored

from zoo.core import seeds
from zoo.core.schedule import EDMSchedule, Level
from zoo.errors import ConfigError
from zoo.protein.backbone import Backbone
from zoo.protein.codec import MOTIF, SCALE, BackboneCodec
from zoo.protein.data import Chains
from zoo.protein.rigid import rmsd


def test_lengths_are_drawn_as_the_data_have_them(helix):
    codec = BackboneCodec()
    draw = seeds.generator(0)
    assert codec.sample_size(None, draw) == 64, "before it saw data"
    codec.fit(Chains([helix, helix, helix, Backbone(chain(50))]))
    drawn = [codec.sample_size(None, draw) for _ in range(200)]
    assert set(drawn) == {40, 50} and 110 < drawn.count(40) < 180
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert codec.sample_size(32, draw) == 32 and codec.sample_size(128, draw) == 128
    for length in (8, 31, 129, 256):
        with pytest.warns(UserWarning, match="32 to 128"):
            assert codec.sample_size(length, draw) == length
    for length in (7, 257):
        with pytest.raises(ConfigError, match="8 to 256"):
            codec.sample_size(length, draw)
    with pytest.raises(ConfigError, match="lengths 40 to 30"):
        BackboneCodec(40, 30)


def test_training_turns_chains_but_never_mirrors_them(coil):
    codec = BackboneCodec()
    plain = codec.encode(coil)
    torch.testing.assert_close(plain.mean((0, 1)), torch.zeros(3), atol=1e-6, rtol=0)
    np.testing.assert_allclose(codec.decode(plain[None], {})[0].atoms, coil.atoms - coil.atoms.mean((0, 1)), atol=1e-3)
    turned = torch.stack([codec.encode(coil, seeds.generator(i)) for i in range(50)])
    assert (turned[0] - turned[1]).abs().max() > 0.5
    assert rmsd(turned.flatten(1, 2), plain.flatten(0, 1).expand(50, -1, 3)).max() * SCALE < 1e-3
    assert rmsd(torch.from_numpy(mirrored(plain.numpy()).reshape(-1, 3)), plain.flatten(0, 1).double()) * SCALE > 1.0


def test_padding_takes_no_part(coil):
    codec = BackboneCodec()
    batch = codec.batch([(coil, {}), (Backbone(chain(33)), {})], seeds.generator(0))
    assert batch.x0.shape == (2, 40, 3, 3) and batch.mask is not None and batch.mask.sum(1).tolist() == [40, 33]
    x = torch.randn(2, 40, 3, 3)
    dirty = torch.where(batch.mask[:, :, None, None], x, torch.nan)
    out = codec.project(dirty, batch.mask)
    assert (out[1, 33:] == 0).all()
    torch.testing.assert_close(out[1:, :33], codec.project(x[1:, :33]))
    level = EDMSchedule().draw(2, seeds.generator(0))
    losses = [
        codec.auxiliary(guess, batch.x0, level, batch.mask) for guess in (x, torch.where(batch.mask[..., None, None], x, 50.0))
    ]
    torch.testing.assert_close(*losses)


def test_the_auxiliary_loss_sees_distances_alone_and_fades_with_noise(coil):
    codec = BackboneCodec()
    x0 = codec.encode(coil)[None]

    def loss(guess, angstrom=0.3):
        sigma = torch.tensor([angstrom / SCALE], dtype=torch.float64)
        return codec.auxiliary(guess, x0, Level(sigma.log() / 4, torch.ones_like(sigma), sigma)).item()

    least = loss(x0)
    assert loss(codec.encode(coil, seeds.generator(1))[None]) == pytest.approx(least, abs=1e-3)
    assert loss(-x0) == pytest.approx(least, abs=1e-3), "distances do not know a mirror: the main loss does"
    noise = torch.randn(x0.shape, generator=seeds.generator(2)) / SCALE
    errors = [loss(x0 + k * noise) for k in (0.05, 0.2, 0.8)]
    assert least < errors[0] < errors[1] < errors[2]
    assert loss(x0 + 0.8 * noise, 20.0) < 0.02 * errors[2]


def test_most_guesses_hold_a_motif_of_the_true_chain(coil):
    """What in-painting shows the net: true residues as one rigid piece on the guess, in any place; neighbours move along."""
    codec, n = BackboneCodec(), 300
    x0 = codec.encode(coil).expand(n, -1, -1, -1)
    guess = codec.project(x0 + 0.3 * torch.randn(x0.shape, generator=seeds.generator(0)))
    sizes = torch.tensor([40, 30, 2 * MOTIF]).repeat(n // 3)
    mask = torch.arange(40) < sizes[:, None]
    kept = guess.clone()
    hinted, known = codec.hint(guess, x0, mask, seeds.generator(1))
    assert torch.equal(guess, kept), "the net's own guess is left alone"
    assert known.shape == x0.shape and torch.equal(known.flatten(2).any(2), known.flatten(2).all(2)), "whole residues"
    known = known.flatten(2).all(2)
    held = known.any(1)
    assert not held[2::3].any(), "too short for a motif"
    assert 0.7 < held[sizes > 2 * MOTIF].float().mean() < 0.8
    assert not (known & ~mask).any() and not hinted[~mask].any()
    torch.testing.assert_close(hinted, codec.project(hinted, mask), atol=1e-5, rtol=0)
    torch.testing.assert_close(hinted[~held], codec.project(guess, mask)[~held], atol=1e-6, rtol=0)
    firsts, lengths = [], []
    for row in held.nonzero()[:, 0].tolist():
        place = known[row].nonzero()[:, 0]
        first, length = int(place[0]), len(place)
        assert int(place[-1]) == first + length - 1, "one piece"
        part = slice(first, first + length)
        assert rmsd(hinted[row, part].flatten(0, 1), x0[row, part].flatten(0, 1)) < 1e-5
        far = mask[row] & ((torch.arange(40) < first - 8) | (torch.arange(40) >= first + length + 8))
        moved = hinted[row, far] - codec.project(guess, mask)[row, far]
        assert not len(moved) or (moved - moved[0, 0]).abs().max() < 1e-3, "shifted as a whole"
        firsts.append(first)
        lengths.append((length, int(sizes[row])))
    assert min(firsts) == 0 and max(first + n for first, (n, _) in zip(firsts, lengths, strict=True)) == 40
    assert min(n for n, _ in lengths) == MOTIF and max(n for n, size in lengths if size == 40) == 20
    assert codec.hint(guess[:9], x0[:9], None, seeds.generator(1))[0].shape == guess[:9].shape
