"""Long recordings as windows: read in part, resampled as the whole is, heard, and the same in every state of the cache."""

import warnings

import numpy as np
import pytest
import soundfile
import torch

import zoo
from zoo.audio import evaluate, reading, recordings
from zoo.audio.codec import SpectrogramCodec
from zoo.audio.data import AudioFolder, TableClips
from zoo.audio.reading import read_clip
from zoo.audio.recordings import look, window
from zoo.contract.registry import get_domain, get_recipe
from zoo.core import seeds
from zoo.data import decoded
from zoo.data.decoded import Store, switched_off
from zoo.errors import ConfigError, DataError
from zoo.evaluation.judge import Features
from zoo.training.report import of_data

RATE = 8000


def song(seconds=6, rate=22050, channels=2, seed=0, silent=()):
    """Tones that change every half second over a little noise; (start, end) seconds of nothing."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    pitch = rng.uniform(200, 2500, int(2 * seconds) + 1)[(2 * t).astype(int)]
    x = 0.3 * np.sin(2 * np.pi * np.cumsum(pitch) / rate)[:, None] * rng.uniform(0.5, 1, channels)
    x += 0.002 * rng.standard_normal(x.shape)
    for start, end in silent:
        x[int(start * rate) : int(end * rate)] = 0
    return x.astype(np.float32)


@pytest.fixture(autouse=True)
def _short_is_short(monkeypatch):
    """A recording of six seconds is a long one here."""
    monkeypatch.setattr(recordings, "SHORT", 2.0)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(decoded, "SETTLED", -1e9)
    found = Store(tmp_path / "cache", 10**9, worth=0)
    monkeypatch.setattr(decoded, "_store", lambda *key: found)
    return found


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "songs"
    root.mkdir()
    for k, suffix in enumerate((".wav", ".flac", ".ogg", ".mp3")):
        soundfile.write(root / f"{k}{suffix}", song(seed=k), 22050)
    soundfile.write(root / "short.wav", song(1.5), 22050)
    return root


def opened(folder, count=2000):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mixed down to mono
        data = AudioFolder(folder, sample_rate=RATE, window=count)
    return data


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".aiff", ".ogg", ".mp3"])
@pytest.mark.parametrize("rate", [8000, 22050, 44100])
def test_a_window_is_what_resampling_all_would_give_there(tmp_path, cache, suffix, rate):
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, song(), 22050)
    known = look(None, path, rate)
    assert known.seeks == (suffix in (".wav", ".flac", ".aiff"))
    clip = read_clip(path).resample(rate).samples
    step = known.sample_rate // np.gcd(known.sample_rate, rate)
    # where both rates have a sample: at the start, inside, and up to the end
    for first in (0, 3 * step, 20 * step):
        start = first / known.sample_rate
        found = window(cache, known, rate, start, 2000).samples
        at = round(start * rate)
        assert np.abs(found - clip[at : at + 2000]).max() < 2e-4, (first, at)
    last = window(cache, known, rate, known.duration, 2000).samples
    assert len(last) == 2000 and np.abs(last[-500:]).max() > 0.05


def test_only_a_part_of_a_file_that_seeks_is_read(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    soundfile.write(path, song(), 22050)
    known = look(None, path, RATE)
    monkeypatch.setattr(recordings, "read_sound", None)  # reads whole files
    asked = []
    part = reading.read_part
    monkeypatch.setattr(recordings, "read_part", lambda *a: asked.append(a[2]) or part(*a))
    window(None, known, RATE, 3.0, 2000)
    assert len(asked) == 1 and 2000 * 22050 / RATE < asked[0] < 2 * 2000 * 22050 / RATE + 2000


def test_channels_of_a_window_are_those_of_the_whole(tmp_path):
    x = song(channels=1)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.concatenate([0.95 * x, -x], 1), 22050)  # wires swapped: only one channel is taken
    known = look(None, path, RATE)
    assert known.channel == 1
    assert np.abs(window(None, known, 22050, 2.0, 1000).samples + x[44100 : 44100 + 1000, 0]).max() < 1e-4


def test_a_folder_gives_the_same_cold_warm_and_without_a_cache(folder, cache):
    def all_of(data):
        rows = range(0, len(data), 24)
        drawn = [data.draw(i, seeds.generator(i, 1))[0].samples.tobytes() for i in rows]
        return [len(data), *(data[i][0].samples.tobytes() for i in rows), *drawn]

    first = all_of(opened(folder))
    assert all_of(opened(folder)) == first
    assert cache.misses == 5
    with switched_off():
        none = opened(folder)
    assert none.cache is None and all_of(none) == first
    with pytest.warns(UserWarning, match="mixed down"):
        late = AudioFolder(folder)
    assert len(late) == 5
    late.at(RATE)
    late.cut(2000)
    assert all_of(late) == first


def test_a_long_recording_is_many_windows_that_reach_its_end(folder, cache):
    data = opened(folder)
    each = [sum(k == file for k, _ in data.windows) for file in range(5)]
    assert each == [24, 24, 24, 24, 6] and len(data) == sum(each)
    starts = [start for file, start in data.windows if file == 0]
    assert starts[0] == 0 and starts[-1] == pytest.approx(6 - 0.25)
    assert all(len(data[i][0]) == 2000 for i in (0, 5, 23))
    # a window of most of a recording is no reason to cut it
    whole = opened(folder, 8000)
    assert [start for file, start in whole.windows if file == 4] == [0.0] and len(whole[len(whole) - 1][0]) == 12000


def test_drawn_windows_lie_about_their_own_and_are_the_generator_s(folder, cache):
    data = opened(folder)
    clip = read_clip(data.files[0]).resample(RATE).samples
    found = []
    for seed in range(20):
        x = data.draw(10, seeds.generator(seed))[0].samples
        place = np.argmax(np.correlate(clip, x - x.mean(), "valid"))
        found.append(place / RATE - data.windows[10][1])
        assert np.array_equal(data.draw(10, seeds.generator(seed))[0].samples, x)
    assert len(set(found)) > 15 and -0.14 < min(found) < -0.03 and 0.03 < max(found) < 0.14


def test_silent_windows_are_left_out(tmp_path, cache):
    (tmp_path / "s").mkdir()
    soundfile.write(tmp_path / "s" / "a.wav", song(20, 8000, 1, silent=[(0, 6.1), (9.9, 15)]), 8000)
    data = opened(tmp_path / "s", 4000)
    starts = [start for _, start in data.windows]
    assert 15 <= len(starts) <= 20 and not any(s + 0.5 < 6 or 10 < s < 14.5 for s in starts)
    for i in range(len(data)):
        for seed in range(4):
            assert np.abs(data.draw(i, seeds.generator(i, seed))[0].samples).max() > 0.01


def test_a_recording_of_which_little_is_heard_has_its_window(tmp_path, cache):
    (tmp_path / "s").mkdir()
    x = np.zeros(20 * 8000, np.float32)
    x[-800:-400] = 0.5 * np.sin(np.arange(400))
    soundfile.write(tmp_path / "s" / "a.wav", x, 8000)
    data = opened(tmp_path / "s", 4000)
    assert len(data) == 1
    for seed in range(10):
        assert np.abs(data.draw(0, seeds.generator(seed))[0].samples).max() > 0.1


def test_a_file_that_changes_during_a_run_is_named(folder, cache):
    data = opened(folder)
    soundfile.write(folder / "0.wav", song(seed=9), 22050)
    with pytest.raises(DataError, match=r"0\.wav: was changed while it was in use"):
        data.draw(0, seeds.generator(0))
    (folder / "1.flac").unlink()
    with pytest.raises(DataError, match=r"1\.flac: No such file"):
        data.draw(30, seeds.generator(0))


def test_training_cuts_windows_for_its_codec(folder, cache):
    domain, recipe = get_domain("audio"), get_recipe("audio/spec-ddpm")
    codec = SpectrogramCodec(**recipe.codec)
    with pytest.warns(UserWarning, match="mixed down to mono"):
        data = domain.dataset(folder, "train", **domain.data_options(recipe))
    data.prepare_for(codec, recipe)
    assert data.sample_rate == 8000 and data.window == codec.samples and data.longer > codec.samples * codec.speed
    codec.fit(data)
    clip = data.draw(3, seeds.generator(0))[0]
    assert len(clip) == data.longer
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(20):
            x = codec.place(clip, seeds.generator(seed))
            assert len(x) == codec.samples and x[-100:].abs().max() > 0.01 and x[:100].abs().max() > 0.01  # no padding
    data.sample_rate = 0
    with pytest.raises(ConfigError, match="at\\(sample_rate\\)"):
        data.cut(100)


@pytest.fixture
def classes(tmp_path):
    """One long recording, and one short one, of each of two classes, ten files in all."""
    for k in range(10):
        place = tmp_path / "classes" / ("ann" if k < 5 else "bob")
        place.mkdir(parents=True, exist_ok=True)
        soundfile.write(place / f"{k}_x_.wav", song(3 if k in (0, 9) else 0.3, rate=RATE, channels=1, seed=k), RATE)
    return tmp_path / "classes"


def test_a_window_has_the_conditions_of_its_recording_with_and_without_reading_it(classes, cache):
    data = AudioFolder(classes, sample_rate=RATE, window=2000, speaker=r"(?P<speaker>ann|bob)")
    assert len(data) > len(data.files) == 9
    assert [data.given(i) for i in range(len(data))] == [data[i][1] for i in range(len(data))]
    assert [data.given(i)["label"] for i in range(len(data))] == [0] * (12 + 4) + [1] * 4
    assert [data.given(i)["speaker"] for i in range(len(data))] == [0] * (12 + 4) + [1] * 4


def test_held_out_recordings_have_windows_of_their_own(classes, cache):
    data = AudioFolder(classes, sample_rate=RATE, window=2000)
    held = data.held_out()
    assert [p.name for p in held.files] == ["9_x_.wav"] and len(held) == 12 and len(data) == 20
    assert all(held[i][1] == {"label": 1} and len(held[i][0]) == 2000 for i in range(12))
    about = of_data(data, get_domain("audio"), len(held))
    assert "20 samples an epoch" in about and "ann 16, bob 4" in about and "held out: 12" in about


def test_long_recordings_are_evaluated_in_the_windows_that_are_learnt(classes, cache, monkeypatch):
    monkeypatch.setattr(evaluate, "through", lambda codec, clips: clips)
    monkeypatch.setattr(evaluate, "candidates", lambda rate: [Features("a net of the test", lambda x: x[:, :8])])
    small = {"net.channels": 8, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 8, "codec.frames": 16}
    model = zoo.create("audio/spec-ddpm", **small, conditions={})
    found = evaluate.evaluator(classes, "test", model)
    windows = AudioFolder(classes, "test", sample_rate=RATE, window=model.codec.samples)
    assert len(found.reference) == len(windows) > len(windows.files) == 1


def test_rows_of_a_table_are_kept_by_their_bytes(folder, cache):
    class Rows:
        labels, origin = {}, "made-up rows"

        def __len__(self):
            return 2

        def __getitem__(self, i):
            return {"audio": (folder / ("short.wav", "3.mp3")[i]).read_bytes()}

    table = TableClips(Rows())
    table.at(RATE)
    with pytest.warns(UserWarning, match="mixed down"):
        clips = [table[i][0].samples for i in range(2)]
    again = [table[i][0].samples for i in range(2)]
    assert cache.misses == 2 and all(map(np.array_equal, clips, again))
    for i, name in enumerate(("short.wav", "3.mp3")):
        assert np.array_equal(clips[i], read_clip(folder / name).resample(RATE).samples)


def test_workers_and_the_main_process_hear_the_same(folder, cache):
    data = opened(folder)
    found = torch.utils.data.DataLoader(
        [0, 30, 50, 75], batch_size=None, num_workers=1, collate_fn=lambda i: data.draw(i, seeds.generator(i))[0].samples
    )
    for i, x in zip([0, 30, 50, 75], found, strict=True):
        assert np.array_equal(x, data.draw(i, seeds.generator(i))[0].samples)
