"""Clips: files that every reader opens, pictures with axes, a player."""

import base64
import re
import sys
import wave

import librosa
import numpy as np
import pytest
import soundfile

from zoo.audio.waveform import Waveform, contact_sheet, need
from zoo.errors import ConfigError, DataError, ShapeError, ZooError

RATE = 8000
STEP = 1 / 32768


@pytest.fixture
def clip():
    t = np.arange(RATE // 2) / RATE
    return Waveform(0.7 * np.sin(2 * np.pi * 440 * t) * np.exp(-3 * t), RATE)


def standard(path):
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


def test_a_wav_opens_everywhere_with_the_same_samples(clip, tmp_path):
    path = clip.save(tmp_path / "a.wav")
    ours, rate = soundfile.read(path)
    assert rate == RATE and soundfile.info(path).subtype == "PCM_16"
    np.testing.assert_array_equal(ours, standard(path))
    assert np.abs(ours - clip.samples).max() <= STEP / 2


@pytest.mark.slow  # librosa compiles parts of itself in a fresh environment
def test_librosa_reads_resamples_and_trims_alike(clip, tmp_path):
    samples, rate = librosa.load(clip.save(tmp_path / "a.wav"), sr=None)
    assert rate == RATE
    np.testing.assert_array_equal(samples, clip.pcm() / 32768)
    theirs = librosa.resample(clip.samples, orig_sr=RATE, target_sr=16000)
    np.testing.assert_allclose(clip.resample(16000).samples, theirs, atol=1e-6)
    quiet = Waveform(np.concatenate([np.zeros(2000), clip.samples, np.zeros(3000)]), RATE)
    trimmed = librosa.effects.trim(quiet.samples, top_db=30, frame_length=160, hop_length=40)[0]
    assert abs(len(quiet.trim(30)) - len(trimmed)) < 250


def test_a_flac_holds_the_same(clip, tmp_path):
    flac, rate = soundfile.read(clip.save(tmp_path / "a.flac"))
    assert rate == RATE and soundfile.info(tmp_path / "a.flac").format == "FLAC"
    np.testing.assert_array_equal(flac, standard(clip.save(tmp_path / "a.wav")))


def test_what_was_read_is_written_bit_for_bit(tmp_path):
    pcm = np.array([-32768, -32767, -1, 0, 1, 2, 32766, 32767], np.int16)
    np.testing.assert_array_equal(Waveform(pcm / 32768, RATE).pcm(), pcm)


def test_overload_is_clipped_as_files_must(tmp_path):
    np.testing.assert_array_equal(Waveform([2.0, -2.0, 1.0], RATE).pcm(), [32767, -32768, 32767])


WRONG = [
    (lambda c, d: Waveform(np.zeros((2, 5)), RATE), ShapeError, "mix channels down"),
    (lambda c, d: Waveform([], RATE), ShapeError, "one channel"),
    (lambda c, d: Waveform([0.0, np.nan], RATE), DataError, "NaN"),
    (lambda c, d: Waveform([0.0], 0), ConfigError, "sample_rate=0"),
    (lambda c, d: Waveform([0.0], 8000.5), ConfigError, "sample_rate"),
    (lambda c, d: c.save(d / "a.mp4"), ConfigError, r"\.wav, \.flac"),
    (lambda c, d: c.save(d / "nowhere" / "a.wav"), DataError, "nowhere"),
    (lambda c, d: c.trim(-3), ConfigError, "top_db"),
    (lambda c, d: c.resample(-1), ConfigError, "sample_rate=-1"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_what_cannot_be_is_one_clear_error(clip, tmp_path, call, error, message):
    with pytest.raises(error, match=message):
        call(clip, tmp_path)


def test_duration_trim_and_resampling(clip):
    assert clip.duration == 0.5 and len(clip) == 4000
    quiet = Waveform(np.concatenate([np.zeros(2000), clip.samples, np.zeros(3000)]), RATE)
    assert abs(quiet.trim(60).duration - 0.5) < 0.03
    assert Waveform(np.zeros(100), RATE).trim().duration == 100 / RATE, "silence has nothing to trim"
    double = clip.resample(2 * RATE)
    assert (double.sample_rate, len(double)) == (2 * RATE, 8000)
    np.testing.assert_allclose(double.samples[1000:7000:2], clip.samples[500:3500], atol=0.01)
    assert clip.resample(RATE) is clip


def test_the_player_holds_the_file(clip, tmp_path):
    data = re.search(r'src="data:audio/wav;base64,([^"]+)"', clip._repr_html_())[1]
    (tmp_path / "p.wav").write_bytes(base64.b64decode(data))
    np.testing.assert_array_equal(standard(tmp_path / "p.wav"), clip.pcm() / 32768)


def test_a_picture_has_seconds_and_hertz(clip):
    from matplotlib.figure import Figure

    axis = Figure().subplots()
    drawn = clip.plot(axis)
    assert axis.get_xlabel() == "time (s)" and axis.get_ylabel() == "frequency (Hz)"
    assert drawn.get_extent() == [0.0, 0.5, 0.0, RATE / 2]
    loudest = np.asarray(drawn.get_array()).mean(1).argmax() / drawn.get_array().shape[0] * RATE / 2
    assert abs(loudest - 440) < 40, "the tone is where its frequency is"
    assert clip.plot().size == (600, 360)


def test_a_contact_sheet_holds_clips_of_any_length(clip):
    sheet = contact_sheet([clip, Waveform(np.zeros(50), RATE), clip], ["a", "", "c"])
    assert sheet.mode == "RGB" and np.asarray(sheet).std() > 5


def test_a_missing_library_names_the_extra(monkeypatch, clip, tmp_path):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ZooError, match=r"soundfile.*diffusion-zoo\[audio\]"):
        clip.save(tmp_path / "a.wav")
    assert need("numpy") is np
