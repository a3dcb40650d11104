"""Clips: files that every reader opens, pictures with axes, a player."""

import base64
import re
import subprocess
import sys
import warnings
import wave

import numpy as np
import pytest
import soundfile
import soxr
import torch

from zoo import extras
from zoo.audio.waveform import COLUMNS, Waveform, contact_sheet, need
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


@pytest.mark.parametrize("old", [8000, 11025, 16000, 44100])
@pytest.mark.parametrize("new", [7919, 8000, 12000, 16000, 44100])
def test_resampling_gives_the_numbers_of_soxr(old, new):
    for n in (2 * old // 1000, 4001):
        x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
        ours, theirs = Waveform(x, old).resample(new), soxr.resample(x, old, new)
        assert ours.sample_rate == new and ours.samples.dtype == np.float32
        np.testing.assert_array_equal(ours.samples, theirs)  # the length too: librosa's own choice is one zero longer


@pytest.mark.parametrize("new", [6000, 16000, 22050])
def test_a_resampled_sine_is_the_sine(new):
    def sine(rate):
        return np.sin(2 * np.pi * 440 * np.arange(rate) / rate)

    clip = Waveform(sine(RATE), RATE).resample(new)
    assert clip.duration == 1
    np.testing.assert_allclose(clip.samples[new // 10 : -new // 10], sine(new)[new // 10 : -new // 10], atol=1e-4)


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
    (lambda c, d: Waveform([0.0], True), ConfigError, "sample_rate=True is invalid"),
    (lambda c, d: Waveform([0.0], "8000"), ConfigError, "sample_rate='8000'"),
    (lambda c, d: Waveform([0.0], torch.tensor(8000.0)), ConfigError, "sample_rate"),
    (lambda c, d: Waveform([0.0], np.array([8000, 8000])), ConfigError, "sample_rate"),
    (lambda c, d: Waveform("loud", RATE), ShapeError, "not an array of numbers"),
    (lambda c, d: Waveform([[0.0], [0.0, 0.1]], RATE), ShapeError, "not an array of numbers"),
    (lambda c, d: Waveform(torch.zeros(2, 5), RATE), ShapeError, r"\(2, 5\)"),
    (lambda c, d: Waveform(torch.tensor([torch.inf]), RATE), DataError, "infinity"),
    (lambda c, d: c.save(d / "a.mp4"), ConfigError, r"\.wav, \.flac"),
    (lambda c, d: c.save(d / "nowhere" / "a.wav"), DataError, "nowhere"),
    *((lambda c, d, top_db=v: c.trim(top_db), ConfigError, "top_db=") for v in (-3, 0, np.nan, "40", None, np.ones(2))),
    (lambda c, d: c.resample(-1), ConfigError, "sample_rate=-1"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_what_cannot_be_is_one_clear_error(clip, tmp_path, call, error, message):
    with pytest.raises(error, match=message):
        call(clip, tmp_path)


def test_duration_and_length(clip):
    assert clip.duration == 0.5 and len(clip) == 4000
    double = clip.resample(2 * RATE)
    assert (double.sample_rate, len(double)) == (2 * RATE, 8000)
    assert clip.resample(RATE) is clip


def tone(seconds, rate, level=0.7):
    return level * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)


@pytest.mark.parametrize("rate", [8000, 22050, 44100])
@pytest.mark.parametrize("level", [0.7, 1e-3, 1e-6])
def test_trim_cuts_silence_and_no_sound(rate, level):
    before, sound, after = np.zeros(rate // 4), tone(0.5, rate, level), np.zeros(rate // 3)
    trimmed = Waveform(np.concatenate([before, sound, after]), rate).trim(60)
    assert trimmed.sample_rate == rate
    assert abs(trimmed.duration - 0.5) < 0.03, "at most a frame of 20 ms and two steps of 5 ms are left"
    assert np.square(trimmed.samples, dtype=float).sum() == pytest.approx(np.square(sound).sum(), rel=1e-3)


def test_trim_cuts_what_is_quieter_than_it_is_told():
    clip = Waveform(np.concatenate([tone(0.3, RATE, 0.02), tone(0.3, RATE), tone(0.3, RATE, 0.02)]), RATE)  # 31 dB apart
    assert abs(clip.trim(25).duration - 0.3) < 0.03
    np.testing.assert_array_equal(clip.trim(35).samples, clip.samples)
    assert len(clip.trim(np.float32(25))) == len(clip.trim(torch.tensor(25))) == len(clip.trim(25.0))


@pytest.mark.parametrize("n", [1, 100, RATE])
def test_silence_is_not_trimmed(n):
    assert len(Waveform(np.zeros(n), RATE).trim()) == n


def test_arrays_and_tensors_are_samples_and_their_scalars_are_numbers(clip):
    given = [clip.samples.tolist(), clip.samples.astype(np.float64), torch.from_numpy(clip.samples).requires_grad_()]
    for samples, rate in zip(given, (RATE, np.uint16(RATE), torch.tensor(RATE)), strict=True):
        made = Waveform(samples, rate)
        assert made.samples.dtype == np.float32 and type(made.sample_rate) is int and made.sample_rate == RATE
        np.testing.assert_array_equal(made.samples, clip.samples)
    assert Waveform(torch.tensor([0.5, -1.0], dtype=torch.bfloat16), RATE).samples.tolist() == [0.5, -1.0]
    for rate in (np.int64(16000), np.array(16000), torch.tensor(16000)):
        assert clip.resample(rate).sample_rate == 16000 and type(clip.resample(rate).sample_rate) is int
    assert contact_sheet([clip] * 3, ["a", "b", "c"], columns=torch.tensor(3)).width > 600


def test_the_player_holds_the_file(clip, tmp_path):
    data = re.search(r'src="data:audio/wav;base64,([^"]+)"', clip._repr_html_())[1]
    (tmp_path / "p.wav").write_bytes(base64.b64decode(data))
    np.testing.assert_array_equal(standard(tmp_path / "p.wav"), clip.pcm() / 32768)


def axis():
    from matplotlib.figure import Figure

    return Figure(layout="constrained").subplots()


def test_a_picture_has_seconds_and_hertz(clip):
    ax = axis()
    drawn = clip.plot(ax)
    assert ax.get_xlabel() == "time (s)" and ax.get_ylabel() == "frequency (Hz)"
    assert ax.get_xlim() == (0.0, 0.5) and ax.get_ylim() == (0.0, RATE / 2)
    corners, db = drawn.get_coordinates(), drawn.get_array()
    assert corners[0, 0, 0] <= 0 and 0.5 <= corners[0, -1, 0] < 0.5 + 0.005, "colours from the start to the end of the clip"
    hertz = corners[:, 0, 1]
    loudest = np.asarray(db).mean(1).argmax()
    assert hertz[loudest] - 16 <= 440 <= hertz[loudest + 1] + 16, "the tone is where its frequency is"
    assert db.max() == 0 and drawn.get_clim() == (-70, 0)
    assert clip.plot().size == (600, 360)


def test_a_sound_is_drawn_when_it_is_heard():
    click = np.zeros(RATE)
    click[RATE // 4] = 1
    drawn = Waveform(click, RATE).plot(axis())
    seconds = drawn.get_coordinates()[0, :, 0]
    loudest = np.asarray(drawn.get_array()).mean(0).argmax()
    assert seconds[loudest] <= 0.25 + 0.004 and seconds[loudest + 1] >= 0.25 - 0.004


def test_a_quiet_clip_looks_as_a_loud_one_and_silence_is_dark(clip):
    loud, quiet = (Waveform(k * clip.samples, RATE).plot(axis()) for k in (1, 1e-4))
    np.testing.assert_allclose(loud.get_array(), quiet.get_array(), atol=0.01)
    silent = Waveform(np.zeros(RATE), RATE).plot(axis())
    assert np.asarray(silent.get_array()).max() <= -70


@pytest.mark.parametrize("n", [1, 50, 40 * RATE])
def test_clips_of_any_length_are_drawn_without_a_word(n):
    x = np.random.default_rng(0).standard_normal(n)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        shape = Waveform(x, RATE).plot(axis()).get_array().shape
    assert 2 <= shape[1] <= COLUMNS + 2


def test_titles_and_labels_do_not_touch(monkeypatch, clip):
    figures = []

    def keep(figure):
        figure.canvas.draw()
        figures.append(figure)

    monkeypatch.setattr("zoo.audio.waveform.to_picture", keep)
    clips = [Waveform(np.zeros(RATE), RATE), Waveform(np.zeros(50), RATE), clip, clip, clip.resample(16000)]
    contact_sheet(clips, ["label=seven, speaker=jackson, take=12"] * 5)
    axes = [ax for ax in figures[0].axes if ax.axison]
    feet = [ax for ax in axes if ax.get_xlabel()]
    assert len(axes) == 10 and len(feet) == 2, "seconds stand at the foot of both columns"
    assert all(ax.xaxis.get_tick_params()["labelbottom"] == (ax in feet) for ax in axes)
    texts = [text for ax in axes for text in (ax.title, ax.xaxis.label, ax.yaxis.label)]
    for axis, side in [(a, s) for ax in axes for a, s in ((ax.xaxis, "labelbottom"), (ax.yaxis, "labelleft"))]:
        texts += axis.get_ticklabels() if axis.get_tick_params()[side] else []
    boxes = [text.get_window_extent() for text in texts if text.get_text() and text.get_visible()]
    assert len(boxes) > 20
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i]), i


def test_a_contact_sheet_holds_clips_of_any_length(clip):
    sheet = contact_sheet([clip, Waveform(np.zeros(50), RATE), clip], ["a", "", "c"])
    assert sheet.mode == "RGB" and np.asarray(sheet).std() > 5


def test_librosa_is_loaded_where_it_works_and_not_before(tmp_path):
    code = (
        "import sys, zoo.audio\nfrom zoo.audio.waveform import Waveform\n"
        f"clip = Waveform([0.1, 0.2], 8000); clip.save({str(tmp_path / 'a.wav')!r}); clip._repr_html_(); clip.resample(8000)\n"
        "print({'librosa', 'numba', 'scipy', 'torch', 'matplotlib'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


def test_a_missing_library_names_the_extra(monkeypatch, clip, tmp_path):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ZooError, match=r"soundfile.*diffusion-zoo\[audio\]"):
        clip.save(tmp_path / "a.wav")
    assert need("numpy") is np


def test_a_missing_librosa_names_the_extra(monkeypatch, clip):
    for module in ("librosa.core.audio", "librosa.effects", "librosa.display"):
        monkeypatch.setitem(sys.modules, module, None)
    for call in (clip.trim, clip.plot, lambda: clip.resample(16000)):
        with pytest.raises(ConfigError, match=r"librosa is needed.*diffusion-zoo\[audio\]"):
            call()


def test_a_numba_without_a_folder_is_told_which_variable_to_set(monkeypatch, clip):
    def locked(module, extra):
        raise RuntimeError("cannot cache function '__o_fold': no locator available")

    monkeypatch.setattr(extras, "need", locked)
    with pytest.raises(ConfigError, match=r"no locator available.*NUMBA_CACHE_DIR"):
        clip.trim()
