"""The data sets in their files, their public home, and folders of anybody's recordings."""

import contextlib
import functools
import http.server
import io
import shutil
import struct
import sys
import threading
import warnings
import wave
import zipfile

import numpy as np
import pytest
import soundfile
import soxr
import torch

import zoo
from zoo.audio import data, reading
from zoo.audio.data import AudioFolder, Clips, download_fsdd, fsdd_hash, open_audio
from zoo.audio.reading import mono, read_clip
from zoo.audio.recipes import DIGITS, SPEAKERS, WORDS
from zoo.audio.waveform import Waveform
from zoo.cli import main
from zoo.contract.registry import get_domain, get_recipe
from zoo.errors import ConfigError, DataError

RATE = 8000
rng = np.random.default_rng(0)


def noise(seconds=0.3, channels=1):
    x = 0.2 * rng.standard_normal((int(seconds * RATE), channels))
    return x[:, 0] if channels == 1 else x


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "calls"
    for label, suffix in (("owl", ".wav"), ("jay", ".flac"), ("crow", ".ogg"), ("tit", ".mp3")):
        (root / label).mkdir(parents=True)
        for i in range(2):
            soundfile.write(root / label / f"{i}_{'ann' if i else 'bob'}{suffix}", noise(), RATE)
    return root


# ---------------------------------------------------------------- the data sets


def test_the_digits_splits_are_the_takes(fsdd_file):
    sizes = {"train": 120, "validation": 60, "test": 60}
    seen = set()
    for split, size in sizes.items():
        clips = open_audio(fsdd_file, split)
        assert len(clips) == len(open_audio(fsdd_file.parent, split)) == size
        assert clips.labels == {"label": list(DIGITS), "speaker": list(SPEAKERS)}
        seen |= {clips[i][0].pcm().tobytes() for i in range(size)}
    assert len(seen) == 240, "no clip is in two splits"
    clip, cond = open_audio(fsdd_file, "test")[6]
    assert cond == {"label": 1, "speaker": 0} and clip.sample_rate == RATE and clip.duration == 0.15


def test_the_words_splits_share_no_speaker(words_file):
    sizes = {s: len(open_audio(words_file, s)) for s in data.SPLITS}
    assert sizes == {"train": 52, "validation": 8, "test": 20}, "speakers 0 and 9 are held out, 15 to 19 are the file's"
    clip, cond = open_audio(words_file, "test")[7]
    assert clip.sample_rate == 16000 and cond == {"label": 1} and open_audio(words_file).labels == {"label": list(WORDS)}


@pytest.mark.slow
def test_a_recipe_gets_the_labels_and_its_own_rate(words_file, fsdd_file):
    domain, recipe = get_domain("audio"), get_recipe("audio/spec-ddpm")
    clips = open_audio(words_file)
    adapted = domain.adapt(recipe, clips)
    assert adapted.conditions["label"].values == WORDS and "speaker" not in adapted.conditions
    assert clips[0][0].sample_rate == RATE and clips[0][0].duration == pytest.approx(0.2)
    assert domain.adapt(recipe, open_audio(fsdd_file)) is recipe


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", b"plain text"])
def test_a_damaged_archive_is_named(tmp_path, content):
    (tmp_path / "fsdd_8k.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"fsdd_8k\.npz"):
        open_audio(tmp_path)


def test_what_is_no_data_is_said(tmp_path, fsdd_file, words_file):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(DataError, match=r"other\.npz"):
        open_audio(tmp_path / "other.npz")
    with pytest.raises(DataError, match="no data at"):
        open_audio(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="validation"):
        open_audio(tmp_path, "dev")
    both = tmp_path / "both"
    both.mkdir()
    shutil.copy(fsdd_file, both)
    shutil.copy(words_file, both)
    with pytest.raises(DataError, match="one of them"):
        open_audio(both)
    with np.load(fsdd_file) as z:
        np.savez(tmp_path / "fsdd_8k.npz", **{k: z[k] for k in z if k != "offsets"}, offsets=np.zeros(9))
    with pytest.raises(DataError, match=r"not an FSDD archive: .*offsets float64 .9,."):
        open_audio(tmp_path / "fsdd_8k.npz")


# ---------------------------------------------------------------- the public home


@pytest.fixture
def home(tmp_path, fsdd_file, monkeypatch):
    """Loopback HTTP with an archive laid out as GitHub's; what it answers can be changed."""
    clips = {}
    with np.load(fsdd_file) as z:
        for i, (d, s, t) in enumerate(zip(z["digit"], z["speaker"], z["take"], strict=True)):
            clips[f"{d}_{SPEAKERS[s]}_{t}.wav"] = z["audio"][z["offsets"][i] : z["offsets"][i + 1]]
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("fsdd-26eb/README.md", "digits")
        for name in sorted(clips, reverse=True):
            wav = io.BytesIO()
            soundfile.write(wav, clips[name], RATE, "PCM_16", format="WAV")
            archive.writestr(f"fsdd-26eb/recordings/{name}", wav.getvalue())
    answers = {"bytes": memory.getvalue(), "asked": 0}
    order = [f"{d}_{s}_{t}.wav" for d in range(10) for s in SPEAKERS for t in (0, 5, 10, 11)]
    monkeypatch.setattr(data, "FSDD_SHA256", fsdd_hash(order, [clips[n] for n in order]))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answers["asked"] += 1
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answers["bytes"])

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(data, "FSDD_HOME", f"http://127.0.0.1:{server.server_port}/archive.zip")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    yield answers
    server.shutdown()


def test_the_public_digits_are_fetched_once_and_checked(home, fsdd_file, tmp_path):
    for _ in range(2):
        clips = open_audio("fsdd", "test")
    assert home["asked"] == 1 and [p.name for p in (tmp_path / "cache" / "fsdd").iterdir()] == ["fsdd_8k.npz"]
    real = open_audio(fsdd_file, "test")
    for i in range(0, 60, 7):
        assert clips[i][1] == real[i][1]
        np.testing.assert_array_equal(clips[i][0].samples, real[i][0].samples)


def test_an_archive_that_was_changed_is_not_kept(home, tmp_path, monkeypatch):
    good = home["bytes"]
    home["bytes"] = good[: len(good) // 2]
    with pytest.raises(DataError, match=r"cannot fetch http.*by hand"):
        download_fsdd(tmp_path / "d")
    home["bytes"] = good
    monkeypatch.setattr(data, "FSDD_SHA256", "0" * 64)
    with pytest.raises(DataError, match=r"SHA-256.*not kept"):
        download_fsdd(tmp_path / "d")
    monkeypatch.setattr(data, "FSDD_HOME", "http://127.0.0.1:9/archive.zip")
    with pytest.raises(DataError, match="cannot fetch"):
        download_fsdd(tmp_path / "d")
    assert not (tmp_path / "d").exists()


@pytest.mark.data
def test_the_hash_is_that_of_the_real_clips(zoo_data):
    with np.load(zoo_data / "audio" / "fsdd_8k.npz") as z:
        rows = np.lexsort((z["take"], z["speaker"], z["digit"]))
        names = [f"{z['digit'][i]}_{SPEAKERS[z['speaker'][i]]}_{z['take'][i]}.wav" for i in rows]
        audio, offsets = z["audio"], z["offsets"]
    assert fsdd_hash(names, [audio[offsets[i] : offsets[i + 1]] for i in rows]) == data.FSDD_SHA256
    assert [len(open_audio(zoo_data / "audio" / "fsdd_8k.npz", s)) for s in data.SPLITS] == [2400, 300, 300]


def odd(path, **change):
    """The archive with other arrays."""
    with np.load(path) as z:
        arrays = {k: z[k] for k in z}
    np.savez(path.parent / "odd.npz", **arrays | {k: v(arrays[k]) for k, v in change.items()})
    return path.parent / "odd.npz"


CHANGES = {
    "audio": [lambda x: x.astype(np.float64), lambda x: x[None], lambda x: x[:0], lambda x: x.astype(str)],
    "offsets": [lambda x: x[::-1], lambda x: x + 10**9, lambda x: x[:-1], lambda x: x.astype(np.uint8), lambda x: x - 1],
    "digit": [lambda x: x + 9, lambda x: x[1:], lambda x: x.astype(float), lambda x: x[None]],
    "speaker": [lambda x: x.astype(str), lambda x: x.astype(int) - 9],
    "take": [lambda x: x[1:], lambda x: x.astype("datetime64[s]")],
    "sample_rate": [lambda x: np.array([1, 2]), lambda x: np.array("fast"), lambda x: np.array(0), lambda x: np.array(10**12)],
}


@pytest.mark.parametrize(("name", "change"), [(k, f) for k, fs in CHANGES.items() for f in fs])
def test_an_archive_of_digits_with_odd_arrays_is_refused(fsdd_file, name, change):
    with pytest.raises(DataError, match=r"odd\.npz is not an FSDD archive"):
        data.fsdd(odd(fsdd_file, **{name: change}))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("audio", lambda x: x[0]),
        ("audio", lambda x: x.astype(float)),
        ("label", lambda x: x + 9),
        ("is_test", lambda x: x.astype(int)),
        ("speaker", lambda x: x[1:]),
        ("sample_rate", lambda x: np.array(3.5)),
    ],
)
def test_an_archive_of_words_with_odd_arrays_is_refused(words_file, name, change):
    with pytest.raises(DataError, match=r"odd\.npz is not an archive of Speech Commands"):
        data.speech_commands(odd(words_file, **{name: change}))


# ---------------------------------------------------------------- folders


def test_a_folder_is_read_with_its_labels(folder):
    clips = open_audio(folder)
    assert len(clips) == 8 and clips.labels == {"label": ["crow", "jay", "owl", "tit"]}
    assert [clips[i][1]["label"] for i in range(8)] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert all(clips[i][0].sample_rate == RATE for i in range(8))
    clips.at(4000)
    assert clips[5][0].sample_rate == 4000 and clips[5][0].duration == pytest.approx(0.3)


def test_speakers_are_found_by_a_pattern(folder):
    clips = open_audio(folder, speaker=r"_(?P<speaker>[a-z]+)\.")
    assert clips.labels["speaker"] == ["ann", "bob"] and clips[1][1] == {"label": 0, "speaker": 0}
    adapted = get_domain("audio").adapt(get_recipe("audio/spec-ddpm"), clips)
    assert adapted.conditions["speaker"].free == "draw" and adapted.conditions["label"].free == "drop"
    for pattern, message in ((r"_([a-z]+)\.", "group"), ("(?P<speaker>[0-9]{5})", "finds no speaker"), ("(", "regular")):
        with pytest.raises(zoo.ZooError, match=message):
            open_audio(folder, speaker=pattern)


def test_every_tenth_clip_is_held_out(tmp_path):
    for i in range(21):
        soundfile.write(tmp_path / f"{i:02d}.wav", noise(), RATE)
    train, held = AudioFolder(tmp_path), AudioFolder(tmp_path, "validation")
    assert len(train) == 19 and [p.name for p in held.files] == ["09.wav", "19.wav"]
    assert train.labels == {} and train[0][1] == {}


def truncated(suffix, kept=0.5):
    def write(path):
        soundfile.write(path, noise(2.0), RATE, format=suffix)
        path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])

    return write


def without_the_last_page(path):
    soundfile.write(path, noise(2.0), RATE, format="OGG")
    path.write_bytes(path.read_bytes()[: path.read_bytes().rfind(b"OggS")])


BAD = {
    "empty.wav": (lambda p: p.write_bytes(b""), "the file is empty"),
    "bare.wav": (lambda p: soundfile.write(p, np.zeros(0), RATE), "no samples"),
    "silent.wav": (lambda p: soundfile.write(p, np.full(4000, 0.25), RATE), "silent"),
    "nan.wav": (lambda p: soundfile.write(p, np.array([0.1, np.nan, 0.3]), RATE, "FLOAT"), "NaN"),
    "text.wav": (lambda p: p.write_text("this is no sound"), "not a readable sound"),
    "picture.mp3": (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500)), "not a readable sound"),
    "half.wav": (truncated("WAV"), "truncated"),
    "half.flac": (truncated("FLAC"), r"half\.flac"),
    "half.ogg": (truncated("OGG"), "truncated"),
    "most.ogg": (truncated("OGG", 0.98), "truncated"),
    "pages.ogg": (without_the_last_page, "truncated"),
    "half.mp3": (truncated("MP3"), r"truncated, \d+ of 16000 samples"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_before_training(folder, name):
    write, message = BAD[name]
    write(folder / "owl" / name)
    with pytest.raises(DataError, match=message) as caught:
        open_audio(folder)
    assert name in str(caught.value) and "--skip-unreadable" in str(caught.value)
    clips = open_audio(folder, skip_unreadable=True)
    assert len(clips) == 8 and [p.name for p in clips.skipped] == [name]


@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize(
    ("suffix", "subtype"), [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_24"), ("OGG", None), ("MP3", None)]
)
def test_a_clip_has_the_samples_of_the_file(tmp_path, suffix, subtype, channels):
    path, most = tmp_path / "sound", 2 if suffix == "MP3" else 8
    soundfile.write(path, noise(channels=min(channels, most)), RATE, subtype, format=suffix)
    with soundfile.SoundFile(path) as file:  # not soundfile.read: it seeks first, and an MP3 then differs in the last bit
        theirs = file.read(dtype="float32", always_2d=True)
    clip = read_clip(path)
    assert clip.sample_rate == RATE and clip.samples.dtype == np.float32
    np.testing.assert_array_equal(clip.samples, theirs.mean(1))
    np.testing.assert_array_equal(read_clip("name", path.read_bytes()).samples, clip.samples)


def test_a_wav_of_sixteen_bits_is_exact(tmp_path):
    pcm = rng.integers(-32768, 32768, 5000, dtype=np.int16)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(pcm.astype("<i2").tobytes())
    np.testing.assert_array_equal(read_clip(tmp_path / "a.wav").pcm(), pcm)


@pytest.mark.parametrize("name", ["text.wav", "picture.mp3", "half.flac"])
def test_no_other_decoder_is_asked(tmp_path, monkeypatch, name):
    def asked(*_):
        pytest.fail("audioread was asked")

    monkeypatch.setattr(pytest.importorskip("audioread"), "audio_open", asked)
    BAD[name][0](tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match="not a readable sound file"):
            read_clip(tmp_path / name)


def test_bytes_are_read_and_no_file_of_that_name(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(), RATE)
    with pytest.raises(DataError, match="not a readable"):
        read_clip(tmp_path / "a.wav", b"something else")
    assert read_clip("nowhere.wav", (tmp_path / "a.wav").read_bytes()).duration == pytest.approx(0.3)


@pytest.mark.parametrize("missing", ["soundfile"])
def test_a_missing_library_is_not_a_bad_file(tmp_path, monkeypatch, missing):
    soundfile.write(tmp_path / "a.wav", noise(), RATE)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=r"diffusion-zoo\[audio\]"):
        read_clip(tmp_path / "a.wav")


def test_clips_are_resampled_to_a_rate_of_numpy_or_torch():
    pcm = rng.integers(-9000, 9000, 4000, dtype=np.int16)
    for audio, rate in ((pcm, np.int32(RATE)), (torch.from_numpy(pcm), torch.tensor(RATE))):
        clips = Clips([audio], rate, {}, {})
        np.testing.assert_array_equal(clips[0][0].samples, pcm / np.float32(32768))
        clips.at(torch.tensor(16000))
        assert clips.sample_rate == 16000 and type(clips.sample_rate) is int
        np.testing.assert_array_equal(clips[0][0].samples, soxr.resample(pcm / np.float32(32768), RATE, 16000))
    with pytest.raises(ConfigError, match="sample_rate=0"):
        clips.at(0)


def test_a_stream_of_unknown_length_is_whole(tmp_path):
    path = tmp_path / "pipe.wav"
    soundfile.write(path, noise(), RATE)
    content = bytearray(path.read_bytes())
    content[4:8] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(content)
    assert read_clip(path).duration == pytest.approx(0.3)


def test_a_voice_has_the_same_number_in_every_split(tmp_path):
    for i in range(20):  # the held-out files are the tenth and the last: bob's alone
        soundfile.write(tmp_path / f"{i:02}_{'bob' if i % 10 == 9 else 'ann'}.wav", noise(), RATE)
    splits = [AudioFolder(tmp_path, split, speaker=r"_(?P<speaker>[a-z]+)") for split in ("train", "validation")]
    assert [data.labels["speaker"] for data in splits] == [["ann", "bob"]] * 2
    assert [data[0][1] for data in splits] == [{"speaker": 0}, {"speaker": 1}]


def test_stereo_is_mixed_down_and_said(tmp_path):
    left = noise()
    soundfile.write(tmp_path / "two.wav", np.stack([left, -0.5 * left], 1), RATE, "FLOAT")
    soundfile.write(tmp_path / "one.wav", left, RATE)
    with pytest.warns(UserWarning, match=r"1 clip.s. are mixed down to mono: .*two\.wav has 2 channels"):
        clips = AudioFolder(tmp_path)
    np.testing.assert_allclose(clips[1][0].samples, 0.25 * left, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (tmp_path / "two.wav").unlink()
        AudioFolder(tmp_path)


# ---------------------------------------------------------------- channels that cancel


def tone(seconds=0.5, hertz=440.0):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)


@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_of_channels_out_of_phase_one_is_taken_and_it_is_said(tmp_path, offset):
    left = tone()
    right = np.rint(-left * 32767) / 32768 + offset  # its rounding is all that a mean would leave
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), RATE)
    with pytest.warns(
        UserWarning, match=r"of 1 clip.s., whose channels cancel each other, only one is taken: channel . of .*a\.wav"
    ):
        clips = AudioFolder(tmp_path)
    found = clips[0][0].samples
    found = found - found.mean()
    np.testing.assert_allclose(np.abs(found @ left) / np.linalg.norm(found) / np.linalg.norm(left), 1, atol=1e-3)
    assert np.abs(found).max() == pytest.approx(0.5, abs=0.01)


def test_a_part_out_of_phase_is_not_lost(tmp_path):
    left = tone(1.0)
    right = np.where(np.arange(len(left)) < len(left) // 2, left, -left)
    samples, channel = mono(np.stack([left, right]).astype(np.float32), RATE)
    assert channel == 0 and np.abs(samples[-1000:]).max() > 0.4


def test_other_channels_are_mixed(tmp_path):
    left, other = tone(), noise(0.5)
    for x in (
        [left, 0 * left],
        [left, other],
        [left, -0.7 * left],
        [left, left],
        [0 * left, 0 * left],
        [left] + 6 * [0 * left],
    ):
        x = np.asarray(x, np.float32)
        samples, channel = mono(x, RATE)
        assert channel is None
        np.testing.assert_array_equal(samples, x.mean(0))


def test_silence_is_judged_after_the_mix(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full((4000, 2), [0.2, -0.2]), RATE)
    with pytest.raises(DataError, match=r"a\.wav: silent"):
        read_clip(tmp_path / "a.wav")


# ---------------------------------------------------------------- headers


def wav(path, samples=None, riff=None, length=None, behind=b"", subtype="PCM_16", endian="LITTLE"):
    """A WAV file with other lengths in its header than it has, and its data."""
    samples = noise() if samples is None else samples
    soundfile.write(path, samples, RATE, subtype, endian, format="WAV")
    content = bytearray(path.read_bytes())
    place, order = content.index(b"data"), ">" if endian == "BIG" else "<"
    if length is not None:
        content[place + 4 : place + 8] = struct.pack(f"{order}I", length)
    if riff is not None:
        content[4:8] = struct.pack(f"{order}I", riff)
    path.write_bytes(content + behind)
    return samples


@pytest.mark.parametrize("length", [0x7FFFFFFF, 0x7FFFF000, 0x7FFFFFFF - 36, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFF - 36, 0])
@pytest.mark.parametrize("riff", [0x7FFFFFFF, 0xFFFFFFFF, 0, 36])
def test_a_wav_of_a_pipe_is_read_to_its_end(tmp_path, length, riff):
    for endian in ("LITTLE", "BIG"):
        samples = wav(tmp_path / "a.wav", riff=riff, length=length, endian=endian)
        np.testing.assert_allclose(read_clip(tmp_path / "a.wav").samples, samples, atol=4e-5)
    np.testing.assert_allclose(read_clip("row", (tmp_path / "a.wav").read_bytes()).samples, samples, atol=4e-5)


@pytest.mark.parametrize("off", [-9, -1, 1, 2, 9, 1000])
def test_the_length_of_all_may_be_off_where_the_samples_are_whole(tmp_path, off):
    samples = wav(tmp_path / "a.wav")
    size = int.from_bytes((tmp_path / "a.wav").read_bytes()[4:8], "little")
    wav(tmp_path / "a.wav", samples, riff=size + off)
    assert len(read_clip(tmp_path / "a.wav")) == len(samples)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_U8", "PCM_24", "FLOAT", "MS_ADPCM", "ULAW"])
def test_a_wav_whose_header_says_less_than_it_holds_is_refused(tmp_path, subtype):
    wav(tmp_path / "a.wav", length=256, subtype=subtype)
    with pytest.raises(DataError, match=r"a\.wav: its header says 256 bytes of samples, and \d+ follow"):
        read_clip(tmp_path / "a.wav")


def test_a_wav_whose_header_says_more_than_it_holds_is_refused(tmp_path):
    wav(tmp_path / "a.wav", length=9999)
    with pytest.raises(DataError, match=r"a\.wav: truncated, 4800 of 9999 bytes"):
        read_clip(tmp_path / "a.wav")


@pytest.mark.parametrize("behind", [b"ResU\xff\0\0\0cut", b"data\x04\0\0\0abcd", bytes(range(1, 100))])
@pytest.mark.parametrize("kind", ["WAV", "RF64", "AIFF", "CAF"])
def test_what_may_be_sound_behind_the_samples_is_refused(tmp_path, kind, behind):
    path = tmp_path / f"a.{kind.lower()}"
    soundfile.write(path, noise(), RATE, "PCM_16", format=kind)
    assert len(read_clip(path)) == len(noise())
    path.write_bytes(path.read_bytes() + behind)
    with pytest.raises(DataError, match=r"a\.\w+: .*(follow|truncated)"):
        read_clip(path)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3"])
def test_tags_in_front_of_a_sound_take_nothing_of_it(tmp_path, kind):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(), RATE, format=kind)
    plain = read_clip(path).samples
    for tag in (b"ID3\x03\0\0\0\0\x01\x05" + bytes(133), b"ID3\x04\0\x10\0\0\0\x05" + bytes(5) + b"3DI\x04\0\x10\0\0\0\x05"):
        np.testing.assert_array_equal(read_clip("x", tag + path.read_bytes()).samples, plain)


@pytest.mark.parametrize(
    "behind",
    [
        b"LIST\x04\0\0\0INFO",
        b"id3 \x03\0\0\0abc\0",
        b"TAG" + bytes(125),
        b"\0",
        bytes(99),
        b"LIST\xff\0\0\0cut",
        b"bext\0\0\0\0LIST\0\0\0\0",
        b"ResU\x03\0\0\0abc\0",
        b"Xtra\x03\0\0\0abc",
    ],
)
def test_what_stands_behind_the_samples_is_no_sound(tmp_path, behind):
    samples = wav(tmp_path / "a.wav", behind=behind)
    assert len(read_clip(tmp_path / "a.wav")) == len(samples)


def test_a_wav_without_samples_is_none_of_a_pipe(tmp_path):
    wav(tmp_path / "a.wav", np.zeros(0), behind=b"LIST\x04\0\0\0INFO")
    with pytest.raises(DataError, match="no samples"):
        read_clip(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("suffix", "kind", "subtype"),
    [
        (".aiff", "AIFF", "PCM_16"),
        (".aif", "AIFF", "FLOAT"),
        (".opus", "OGG", "OPUS"),
        (".flac", "FLAC", "PCM_16"),
        (".oga", "OGG", "VORBIS"),
        (".mp3", "MP3", None),
        (".au", "AU", "PCM_16"),
        (".caf", "CAF", "PCM_16"),
        (".wav", "RF64", "PCM_16"),
        (".wav", "WAVEX", "PCM_16"),
    ],
)
def test_every_format_is_read_whole_or_refused(tmp_path, suffix, kind, subtype):
    path, samples = tmp_path / f"a{suffix}", tone(2.0)
    soundfile.write(path, samples, RATE, subtype, format=kind)
    clip = open_audio(tmp_path)[0][0]
    assert clip.resample(RATE).duration == pytest.approx(2.0, abs=0.15)
    assert np.abs(clip.samples).max() == pytest.approx(0.5, abs=0.1)
    whole = path.read_bytes()
    if kind != "MP3":  # its frames stand alone, and its length is only a guess
        path.write_bytes(whole[: len(whole) * 6 // 10])
        with pytest.raises(DataError, match=rf"a\{suffix}: (truncated|not a readable)"):
            read_clip(path)


def test_a_length_that_no_memory_holds_takes_none(tmp_path):
    soundfile.write(tmp_path / "a.flac", noise(), RATE)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    for total, message in ((2**36 - 1, "(truncated|not a readable)"), (0, "its header does not say how long it is")):
        content[21] = content[21] & 0xF0 | total >> 32
        content[22:26] = (total & 0xFFFFFFFF).to_bytes(4, "big")
        (tmp_path / "a.flac").write_bytes(content)
        with pytest.raises(DataError, match=rf"a\.flac: {message}"):
            read_clip(tmp_path / "a.flac")


def test_a_file_that_grows_too_long_is_refused(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", noise(), RATE)
    monkeypatch.setattr(reading, "MOST_VALUES", 1000)
    monkeypatch.setattr(reading, "BLOCK", 500)
    with pytest.raises(DataError, match=r"longer than 1,000 samples"):
        read_clip(tmp_path / "a.wav")


def test_samples_and_rates_that_cannot_be_are_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", 20000 * noise(), RATE, "FLOAT")
    with pytest.raises(DataError, match=r"samples up to .*full scale is 1"):
        read_clip(tmp_path / "a.wav")
    soundfile.write(tmp_path / "b.wav", noise(), 7)
    with pytest.raises(DataError, match="7 Hz; rates of"):
        read_clip(tmp_path / "b.wav")


def test_two_streams_in_one_ogg_are_refused(tmp_path):
    soundfile.write(tmp_path / "a.ogg", noise(), RATE)
    (tmp_path / "a.ogg").write_bytes(2 * (tmp_path / "a.ogg").read_bytes())
    with pytest.raises(DataError, match="it holds 2 streams"):
        read_clip(tmp_path / "a.ogg")


def test_what_is_no_sound_of_ours_is_named(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(), RATE)
    (tmp_path / "b.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    with pytest.warns(UserWarning, match=r"1 clip; left out: 1 \.m4a"):
        open_audio(tmp_path)
    soundfile.write(tmp_path / "c.wav", noise(), RATE, format="W64")
    with pytest.raises(DataError, match=r"c\.wav: it is a W64 file"):
        read_clip(tmp_path / "c.wav")


def test_every_damaged_byte_of_a_sound_is_one_error_or_a_sound(tmp_path):
    for kind in ("WAV", "AIFF", "FLAC", "OGG", "AU", "CAF"):
        memory = io.BytesIO()
        soundfile.write(memory, noise(0.1), RATE, format=kind)
        content = memory.getvalue()
        for place in range(0, min(200, len(content)), 3):
            damaged = bytearray(content)
            damaged[place] ^= int(rng.integers(1, 256))
            with contextlib.suppress(DataError):
                read_clip("a", bytes(damaged))


def test_folders_that_cannot_be_are_said(tmp_path, folder):
    (tmp_path / "bare").mkdir()
    for path, message in ((tmp_path / "bare", "holds no"), (folder / "owl" / "0_bob.wav", "is one file")):
        with pytest.raises(DataError, match=message):
            open_audio(path)
    soundfile.write(folder / "loose.wav", noise(), RATE)
    with pytest.raises(DataError, match="mixes loose"):
        open_audio(folder)


SMALL = ["net.channels=16", "net.multipliers=[1]", "net.attention=[false]", "net.emb_dim=16", "training.batch_size=2"]


@pytest.mark.slow
def test_a_folder_trains_and_the_previews_are_sounds(folder, tmp_path):
    out = tmp_path / "run"
    options = [o for s in [*SMALL, "codec.sample_rate=4000", "sampling.steps=1"] for o in ("--set", s)]
    run = [
        "train",
        "audio/spec-ddpm",
        "--cpu",
        "--data",
        str(folder),
        "--out",
        str(out),
        "--steps",
        "2",
        "--preview-every",
        "2",
    ]
    assert main([*run, *options]) == 0
    model = zoo.load(out)
    assert model.recipe.conditions["label"].values == ("crow", "jay", "owl", "tit")
    clip = model.sample(1, label="owl", seed=0)[0]
    assert isinstance(clip, Waveform) and clip.sample_rate == 4000
    previews = sorted((out / "previews" / "0000002").glob("*.wav"))
    assert len(previews) == 20 and (out / "previews" / "0000002.png").exists()
    with wave.open(str(previews[0]), "rb") as file:
        assert file.getframerate() == 4000
