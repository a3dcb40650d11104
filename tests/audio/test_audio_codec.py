"""Spectrograms and back: the filter bank against librosa's, what is kept, what is refused."""

import builtins
import subprocess
import sys

import librosa
import numpy as np
import pytest
import torch

import zoo
from zoo.audio.codec import SpectrogramCodec, resampled, transforms
from zoo.audio.data import Clips, open_audio
from zoo.audio.waveform import Waveform
from zoo.errors import ConfigError, DataError, ShapeError

RATE = 8000
SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}


def voice(seconds=0.5, pitch=120.0, seed=0):
    """Harmonics that fall off, with a little noise: what a codec of speech is for."""
    t = np.arange(int(seconds * RATE)) / RATE
    tones = sum(np.sin(2 * np.pi * pitch * k * t + k) / k for k in range(1, 20))
    envelope = np.sin(np.pi * t / seconds) ** 0.5
    return Waveform(0.3 * tones * envelope + 1e-4 * np.random.default_rng(seed).standard_normal(len(t)), RATE)


@pytest.fixture(scope="module")
def codec():
    made = SpectrogramCodec(jitter=0.04, speed=0.06)
    made.fit(Clips([voice(pitch=p).samples for p in (90, 120, 200)], RATE, {}, {}))
    return made


@pytest.mark.slow  # librosa loads for seconds
def test_the_filter_bank_is_librosas(codec):
    ours = codec.tools(torch.device("cpu"))[0].mel_scale.fb.T.numpy()
    theirs = librosa.filters.mel(sr=RATE, n_fft=256, n_mels=64)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.slow
def test_the_spectrogram_is_librosas(codec):
    x = codec.place(voice())
    theirs = librosa.feature.melspectrogram(y=x.numpy(), sr=RATE, n_fft=256, hop_length=64, n_mels=64, power=1.0)
    ours = codec.spectrograms(x[None])[0, 0]
    low, high = float(codec.low), float(codec.high)
    assert high - low == pytest.approx(70 / 20 * np.log(10))
    expected = 2 * (np.log(np.maximum(theirs, np.exp(low))) - low) / (high - low) - 1
    np.testing.assert_allclose(ours, expected.clip(-1, 1), atol=1e-4)


def test_a_tone_lies_in_its_band(codec):
    for hertz, band in ((500, 13), (1000, 27), (2000, 45)):  # nearest centres of librosa.mel_frequencies(66, fmin=0, fmax=4000)
        t = np.arange(4000) / RATE
        heard = codec.encode(Waveform(np.sin(2 * np.pi * hertz * t), RATE))[0].mean(1)
        assert abs(int(heard.argmax()) - band) <= 1, hertz


def test_a_clip_that_is_played_backwards_is_a_clip(codec):
    """Arrays may be views with any strides; torch takes no negative ones."""
    clip = voice()
    assert torch.equal(
        codec.encode(Waveform(clip.samples[::-1], RATE)), codec.encode(Waveform(clip.samples[::-1].copy(), RATE))
    )


def test_encoded_values_fill_the_range(codec):
    x0 = torch.stack([codec.encode(voice(pitch=p)) for p in (90, 120, 200)])
    assert x0.min() == -1 and x0.max() == pytest.approx(1), "fitted to the loudest of these clips"
    assert x0.shape == (3, 1, 64, 128)


def test_a_spectrogram_survives_the_sound(codec):
    x0 = codec.encode(voice())[None]
    again = codec.spectrograms(codec.sound(x0))
    heard = x0 > -0.5  # 50 dB of the 70
    assert (again - x0)[heard].abs().mean() * 35 < 3, "dB"
    clip = codec.decode(x0, {})[0]
    spectrum = np.abs(np.fft.rfft(clip.samples))
    assert abs(spectrum[20:].argmax() + 20 - 120 * clip.duration) < 4, "the pitch is kept"


def test_a_decoded_clip_is_what_a_file_holds(codec):
    x0 = codec.encode(voice())[None]
    (clip,) = codec.decode(x0.expand(1, -1, -1, -1), {})
    np.testing.assert_array_equal(clip.pcm() / 32768, clip.samples)
    assert clip.sample_rate == RATE and clip.duration == pytest.approx(127 * 64 / RATE)
    assert abs(clip.samples.mean()) < 1e-3 and clip.samples[0] == clip.samples[-1] == 0
    assert torch.equal(codec.encode(clip), x0[0]), "its spectrogram is kept"
    assert not torch.equal(codec.encode(clip, torch.Generator().manual_seed(0)), x0[0])
    loud = codec.sound(torch.ones(1, 1, 64, 128))
    assert 0.98 < loud.abs().max() <= 0.99, "turned down, not clipped"
    assert not codec.sound(torch.full((1, 1, 64, 128), -1.0)).any(), "the lowest value is silence"


def test_a_clip_has_one_sound(codec):
    x0 = torch.stack([codec.encode(voice(pitch=p)) for p in (100, 150, 210)])
    alone = torch.cat([codec.sound(x[None]) for x in x0])
    torch.testing.assert_close(codec.sound(x0), alone, atol=2e-3, rtol=0)
    nearly = x0 + 1e-6 * torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(codec.sound(nearly), alone, atol=5e-3, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):  # as in `benchmarks/package.py`
        torch.testing.assert_close(codec.sound(x0), alone, atol=2e-3, rtol=0)
        torch.testing.assert_close(codec.encode(voice(pitch=100)), x0[0])


def test_level_and_offset_do_not_count(codec):
    clip = voice()
    quiet = Waveform(clip.samples * 0.01 + 0.1, RATE)
    assert (codec.encode(quiet) - codec.encode(clip)).abs().max() < 0.02


def test_augmentation_needs_a_generator_and_follows_it(codec):
    clip = voice()
    a, b, c = (codec.encode(clip, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(codec.encode(clip), codec.encode(clip))
    starts = []
    for seed in range(60):
        x = codec.place(clip, torch.Generator().manual_seed(seed))
        heard = x.abs() > 1e-3
        starts.append(int(heard.int().argmax()) / RATE)
    assert 0.02 < min(starts) < 0.04 and 0.09 < max(starts) < 0.12, "0.064 s lead, 0.04 s either way"


def test_long_clips_are_cropped_at_random_in_training_only(codec):
    long = Waveform(np.linspace(-1, 1, 3 * RATE) + 0.01 * np.sin(np.arange(3 * RATE)), RATE)
    start = codec.place(long)
    assert len(start) == codec.samples and start[0] == pytest.approx(-0.9, abs=0.02)
    means = {round(float(codec.place(long, torch.Generator().manual_seed(s)).mean()), 2) for s in range(20)}
    assert len(means) > 10 and min(means) < -0.3 and max(means) > 0.3


def test_silence_is_trimmed_when_asked():
    padded = Waveform(np.concatenate([np.zeros(3000), voice(0.3).samples, np.zeros(3000)]), RATE)
    plain, trimmed = SpectrogramCodec().place(padded), SpectrogramCodec(trim_db=40.0).place(padded)
    assert plain[:3000].abs().max() < 1e-3 and trimmed[512:1024].abs().max() > 0.1


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.1])
def test_faster_is_higher_and_shorter(speed):
    t = torch.arange(4000) / RATE
    x = resampled(torch.sin(2 * torch.pi * 400 * t), speed)
    assert len(x) == round(4000 / speed) and x.abs().max() == pytest.approx(1, abs=0.05)
    assert torch.fft.rfft(x).abs().argmax() * RATE / len(x) == pytest.approx(400 * speed, abs=3)


WRONG = [
    ({"frames": 4}, "shorter than one FFT"),
    ({"hop": 200}, "hop=200"),
    ({"mels": 100}, "filters are empty"),
    ({"sample_rate": 0}, "sample_rate=0"),
    ({"n_fft": 256.5}, r"n_fft=256\.5"),
    ({"momentum": 1.0}, "momentum"),
    ({"jitter": 0.5}, "lead=0.064"),
    ({"range_db": -1.0}, "range_db"),
    ({"colour": 1}, "colour"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_a_codec_that_cannot_be_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        zoo.create("audio/spec-ddpm", **{f"codec.{k}": v for k, v in options.items()})


def test_what_cannot_be_encoded_is_said(codec):
    with pytest.raises(DataError, match=r"16000 Hz .* 8000 Hz.*resample\(8000\)"):
        codec.encode(Waveform(voice().samples, 16000))
    with pytest.raises(DataError, match="silent"):
        codec.encode(Waveform(np.zeros(4000), RATE))
    with pytest.raises(DataError, match="Waveform"):
        codec.encode(voice().samples)
    with pytest.raises(ShapeError, match="1, 64, 128"):
        codec.decode(torch.zeros(2, 64, 128), {})


def test_spans_in_seconds():
    codec = SpectrogramCodec()
    where = codec.frames(0.2, 0.4)
    assert where.shape == (1, 1, 128) and where.sum() == 25 and where[0, 0, 25] and not where[0, 0, 24]
    with pytest.raises(ConfigError, match="window is 0"):
        codec.frames(2.0, 3.0)


def test_a_gap_is_filled_and_the_rest_kept():
    model = zoo.create("audio/spec-ddpm", **SMALL)
    clip, where = voice(), ~model.codec.frames(0.2, 0.4)
    filled = model.inpaint(clip, where, n=2, label="seven", seed=0, steps=2)
    known = model.codec.encode(clip)
    for sample in filled:
        kept = where.expand_as(known)
        assert torch.equal(sample.encoded[kept], known[kept]) and not torch.equal(sample.encoded, known)
    near = model.vary(clip, 0.04, n=2, seed=0, steps=25)
    assert (near[0].encoded - known).abs().mean() < (filled[0].encoded - known).abs().mean()


def test_a_model_takes_only_its_own_words():
    model = zoo.create("audio/spec-ddpm", **SMALL)
    with pytest.raises(ConfigError, match=r"'sevn'.*'seven'"):
        model.sample(1, label="sevn")
    with pytest.raises(ConfigError, match="jackson"):
        model.sample(1, speaker="jack")
    drawn = model.sample(12, seed=0, steps=1).conditions
    assert set(drawn["label"]) == {None} and None not in drawn["speaker"] and len(set(drawn["speaker"])) > 2


# ---------------------------------------------------------------- installations


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("libtorchaudio.so: undefined symbol"), r"undefined symbol.*Found torch .* torchaudio .*torch 2\.14\.1 and"),
        (ImportError("no torchaudio", name="torchaudio"), r"diffusion-zoo\[audio\]"),
    ],
)
def test_a_torchaudio_that_does_not_load_is_one_clear_error(monkeypatch, error, message):
    real = builtins.__import__

    def broken(name, *args, **kwargs):
        if name.partition(".")[0] == "torchaudio":
            raise error
        return real(name, *args, **kwargs)

    transforms.cache_clear()
    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(ConfigError, match=message):
        SpectrogramCodec()
    monkeypatch.undo()
    assert transforms().GriffinLim


def test_models_are_listed_without_audio_libraries():
    code = "import sys, zoo; zoo.list_models(); print({'torch', 'torchaudio', 'librosa', 'soundfile'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


@pytest.mark.data
def test_the_codec_costs_no_more_than_two_points(zoo_data):
    from zoo.audio.evaluate import through
    from zoo.audio.judge import load_judge

    for judge, recipe, file in (
        ("digits-judge", "audio/spec-ddpm", "fsdd_8k.npz"),
        ("words-judge", "audio/words-ddpm", "speech_commands_4w_16k.npz"),
    ):
        codec, judge = zoo.create(recipe).codec, load_judge(judge)
        codec.fit(open_audio(zoo_data / "audio" / file))
        clips = open_audio(zoo_data / "audio" / file, "validation")
        raw = torch.stack([codec.place(clips[i][0]) for i in range(len(clips))])
        labels = torch.from_numpy(clips.targets["label"])
        before, after = ((judge.features(x)[1].argmax(1) == labels).double().mean() for x in (raw, through(codec, raw)))
        assert after > before - 0.02
