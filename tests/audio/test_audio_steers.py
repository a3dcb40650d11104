"""Steers of sounds by name: what is held in seconds, a band in hertz, a level in decibels."""

import numpy as np
import pytest
import torch

import zoo
from zoo.audio.codec import SpectrogramCodec
from zoo.audio.steers import band, continuation, gap, loudness
from zoo.audio.waveform import Waveform
from zoo.cli import steer_of
from zoo.core.correction import Setting, bound
from zoo.core.predict import noise_of
from zoo.core.schedule import DiscreteSchedule
from zoo.errors import ConfigError, DataError

CODEC = SpectrogramCodec()
LEVEL = DiscreteSchedule().level(300)


def clip(rate=8000, seconds=0.9, hertz=440.0):
    t = np.arange(int(rate * seconds)) / rate
    return Waveform((0.5 * np.sin(2 * np.pi * hertz * t)).astype(np.float32), rate)


def independent(x, level):
    x0 = level.alpha * x / (level.alpha**2 + level.sigma**2)
    return x0, noise_of(x, x0, level)


def steered(steer, codec=CODEC):
    x = torch.randn(2, *codec.shape, generator=torch.Generator().manual_seed(0))
    return independent(x, LEVEL)[0], bound(steer, Setting(None, codec=codec))(independent)(x, LEVEL)[0]


def test_parts_of_a_clip_are_held(tmp_path):
    known, frames = CODEC.encode(clip()), CODEC.frames(0.0, 0.3)[0, 0]
    clip(16000).save(tmp_path / "a.wav")
    free, found = steered(continuation(clip(), 0.3))
    torch.testing.assert_close(found[..., frames], known[..., frames].expand(2, -1, -1, -1))
    assert torch.equal(found[..., ~frames], free[..., ~frames])
    _, read = steered(continuation(str(tmp_path / "a.wav"), 0.3))  # at another rate
    assert (read[..., frames] - found[..., frames]).abs().mean() < 0.05
    free, found = steered(gap(clip(), 0.2, 0.4))
    hole = CODEC.frames(0.2, 0.4)[0, 0]
    assert torch.equal(found[..., hole], free[..., hole]) and torch.equal(found[0][..., ~hole], known[..., ~hole])


def test_a_band_is_all_that_sounds():
    middles = CODEC.middles()
    assert (middles.diff() > 0).all() and 0 < middles[0] < 100 and 3500 < middles[-1] < 4000
    loudest = CODEC.encode(clip(hertz=1000.0))[0].mean(1).argmax()
    assert abs(middles[loudest] - 1000) < 80, "a tone of 1 kHz lies in the mel whose middle that is"
    free, found = steered(band(300, 2000))
    inside = (middles >= 300) & (middles <= 2000)
    assert torch.equal(found[:, :, inside], free[:, :, inside])
    assert (found[:, :, ~inside] <= -1 + 1e-6).all() and (free[:, :, ~inside] > -1).any()


def test_a_level_is_a_measurement_of_the_mean():
    _, found = steered(loudness(-30.0, noise=0.01))
    decibels = (found - 1) / 2 * CODEC.range_db
    assert decibels.mean((1, 2, 3)).tolist() == pytest.approx([-30, -30], abs=0.1)
    free, found = steered(loudness(-60.0, 0.5, 0.7, noise=0.01))
    frames = CODEC.frames(0.5, 0.7)[0, 0]
    assert ((found - 1) / 2 * CODEC.range_db)[..., frames].mean().item() == pytest.approx(-60, abs=0.1)
    torch.testing.assert_close(found[..., ~frames], free[..., ~frames])


def test_all_are_asked_on_the_command_line(tmp_path):
    model = zoo.load("audio/spec-ddpm")
    clip().save(tmp_path / "a.wav")
    texts = ['loudness={"level": -45}', f"continuation={tmp_path}/a.wav,0.3", "band=300,2000"]
    made = model.sample(1, steps=2, seed=0, steer=[steer_of(model, text) for text in texts])
    low = model.codec.middles() < 300
    assert (model.codec.encode(made[0])[0, low] <= -1 + 1e-6).all()
    assert steer_of(model, f"gap={tmp_path}/a.wav,0.2,0.4") is not None


def test_what_they_refuse():
    for make in (
        lambda: continuation(clip(), 0), lambda: gap(clip(), 0.4, 0.2), lambda: band(200, 100), lambda: band("low"),
        lambda: loudness(3), lambda: loudness(-20, 0.1), lambda: loudness(-20, noise=-1),
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            make()
    for steer, error in (
        (continuation(3, 0.3), ConfigError), (continuation("nowhere.wav", 0.3), DataError), (gap(clip(), 7, 8), ConfigError),
        (band(5000), ConfigError), (loudness(-100), ConfigError),
    ):  # fmt: skip
        with pytest.raises(error):
            steered(steer)
    with pytest.raises(ConfigError, match="spectrograms"):
        steered(band(300), zoo.create("policy/pusht-keypoints").codec)
