"""Clips to train on: spoken digits (FSDD), four words of Speech Commands, and any folder of recordings."""

from __future__ import annotations

import hashlib
import io
import math
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from zoo.audio.codec import ClipCodec
from zoo.audio.reading import RATES, SUFFIXES, note_channels, read_clip
from zoo.audio.recipes import DIGITS, SPEAKERS
from zoo.audio.recordings import Recording, decoded, look, short, window
from zoo.audio.waveform import Waveform, hertz
from zoo.contract.dataset import Dataset
from zoo.contract.recipe import Recipe
from zoo.data.archive import read_archive
from zoo.data.cache import cache_folder, download
from zoo.data.decoded import store
from zoo.data.folder import Folder, existing, threads_of_reading
from zoo.data.table import Part, Rows, Table, open_rows, table_options
from zoo.errors import ConfigError, DataError, one_of
from zoo.files import write_atomic
from zoo.values import whole

SPLITS = ("train", "validation", "test")
FSDD_FILE, WORDS_FILE = "fsdd_8k.npz", "speech_commands_4w_16k.npz"
#: of the digits: the official test takes, and those that nothing trains on and choices are made on
TEST_TAKES, VALIDATION_TAKES = range(0, 5), range(5, 10)
#: of the words: every ninth training speaker is held out for choices (25 of 207, 162 clips)
VALIDATION_SPEAKERS = 9


class Clips(Dataset):
    """Clips in memory.

    Args:
        audio: int16 (L,) or float32 (L,) in -1..1 for each clip, numpy arrays or torch tensors.
        sample_rate: Hz.
        targets: {condition: class numbers (n,)}.
        labels: {condition: class names}.
    """

    def __init__(
        self,
        audio: Sequence[NDArray[Any]],
        sample_rate: int,
        targets: Mapping[str, NDArray[Any]],
        labels: Mapping[str, Sequence[str]],
    ) -> None:
        self.audio, self.sample_rate = [np.asarray(x) for x in audio], hertz(sample_rate)
        self.targets = {k: np.asarray(v).astype(int) for k, v in targets.items()}
        self.labels = {k: list(v) for k, v in labels.items()}

    def __len__(self) -> int:
        return len(self.audio)

    def __getitem__(self, i: int) -> tuple[Waveform, dict[str, Any]]:
        x = self.audio[i]
        samples = x.astype(np.float32) / 32768 if x.dtype == np.int16 else x
        return Waveform(samples, self.sample_rate), {k: int(v[i]) for k, v in self.targets.items()}

    def at(self, sample_rate: int) -> None:
        """From now on at another rate in Hz."""
        rate = hertz(sample_rate)
        if rate != self.sample_rate:
            self.audio = [self[i][0].resample(rate).samples for i in range(len(self))]
            self.sample_rate = rate


def fsdd(path: Path, split: str = "train") -> Clips:
    """Free Spoken Digit Dataset (3,000 clips of six speakers, 8 kHz) from `fsdd_8k.npz`.

    "test" are the official takes 0-4, "validation" takes 5-9 of each digit and speaker (300 each), "train" the rest.
    """
    z = read_archive(path, ("audio", "offsets", "digit", "speaker", "speaker_names", "take", "sample_rate"), "FSDD")
    known = tuple(str(n) for n in z["speaker_names"].ravel())
    count, offsets = z["take"].size, z["offsets"]
    fits = offsets.shape == (count + 1,) and _numbers(offsets, z["audio"].size + 1) and z["audio"].ndim == 1
    fits = fits and bool((np.diff(offsets.astype(np.int64)) > 0).all())  # unsigned ones would never be below 0
    columns = all(_numbers(z[k], n, count) for k, n in (("digit", len(DIGITS)), ("speaker", len(SPEAKERS)), ("take", 10**6)))
    if not fits or not columns or known != SPEAKERS or not _is_sound(z):
        found = ", ".join(f"{k} {v.dtype} {v.shape}" for k, v in z.items())
        raise DataError(f"{path} is not an FSDD archive: {found}; its speakers are {', '.join(known)[:99]}.")
    held = {"test": np.isin(z["take"], TEST_TAKES), "validation": np.isin(z["take"], VALIDATION_TAKES)}
    rows = np.flatnonzero(held[split] if split in held else ~(held["test"] | held["validation"]))
    audio = [z["audio"][z["offsets"][i] : z["offsets"][i + 1]] for i in rows]
    targets = {"label": z["digit"][rows], "speaker": z["speaker"][rows]}
    return Clips(audio, int(z["sample_rate"].item()), targets, {"label": DIGITS, "speaker": known})


def speech_commands(path: Path, split: str = "train") -> Clips:
    """Four words of Speech Commands (1,581 clips of 1 s, 230 speakers, 16 kHz) from `speech_commands_4w_16k.npz`.

    No speaker is in two splits: "test" is the file's own, "validation" every ninth of the other speakers.
    """
    z = read_archive(path, ("audio", "label", "label_names", "speaker", "is_test", "sample_rate"), "Speech Commands")
    count, names = len(z["audio"]) if z["audio"].ndim == 2 else -1, [str(n) for n in z["label_names"].ravel()]
    columns = _numbers(z["label"], len(names), count) and _numbers(z["speaker"], 10**6, count)
    if not columns or not z["audio"].size or z["is_test"].shape != (count,) or z["is_test"].dtype != bool or not _is_sound(z):
        found = ", ".join(f"{k} {v.dtype} {v.shape}" for k, v in z.items())
        raise DataError(f"{path} is not an archive of Speech Commands: {found}.")
    test, held = z["is_test"], z["speaker"] % VALIDATION_SPEAKERS == 0
    rows = np.flatnonzero({"test": test, "validation": ~test & held, "train": ~test & ~held}[split])
    return Clips(list(z["audio"][rows]), int(z["sample_rate"].item()), {"label": z["label"][rows]}, {"label": names})


def _numbers(array: NDArray[Any], below: int, count: int | None = None) -> bool:
    """Whether an array is `count` whole numbers 0 to `below` - 1."""
    fits = array.ndim == 1 and np.issubdtype(array.dtype, np.integer) and (count is None or len(array) == count)
    return bool(fits and array.size and array.min() >= 0 and array.max() < below)


def _is_sound(z: Mapping[str, NDArray[Any]]) -> bool:
    """Whether an archive's samples are int16 and it has one sample rate that can be."""
    rate = z["sample_rate"]
    return bool(z["audio"].dtype == np.int16 and rate.size == 1 and rate.dtype.kind in "iu" and int(rate.item()) in RATES)


# ---------------------------------------------------------------- the public home of FSDD

PUBLIC = "fsdd"  # the name by which users ask for the public data
MOST_FSDD = 2**27  # bytes of its unpacked files: they have 29 MB
FSDD_COMMIT = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"
FSDD_HOME = f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/{FSDD_COMMIT}.zip"
#: SHA-256 over each file's name, a line feed and its samples (int16, little endian), by digit, speaker and take. An
#: archive's own bytes may change with the compressor of the server that makes it; what it holds may not.
FSDD_SHA256 = "c29c65c75944f55afdcd595fe823232f13ddc7ca73996c651f702bc12049aa06"


def download_fsdd(folder: str | Path, home: str | None = None) -> Path:
    """Fetch FSDD into `folder`/fsdd_8k.npz, once: its clips are checked by hash before the file gets its name."""
    path, home = Path(folder) / FSDD_FILE, home or FSDD_HOME
    if path.exists():
        return path
    advice = f"Put {FSDD_FILE} into {folder} by hand."
    data = download(home, advice=advice)
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        if (declared := sum(info.file_size for info in archive.infolist())) > MOST_FSDD:
            raise DataError(f"its files declare {declared:,} bytes")
        members = {n.rpartition("/")[2]: n for n in archive.namelist() if "/recordings/" in n and n.endswith(".wav")}
        key = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav")
        facts = sorted((int(m[1]), SPEAKERS.index(m[2]), int(m[3])) for m in map(key.fullmatch, members) if m)
        names = [f"{d}_{SPEAKERS[s]}_{t}.wav" for d, s, t in facts]
        audio = [read_clip(name, archive.read(members[name])).pcm() for name in names]
    except Exception as error:  # zlib.error, BadZipFile, NotImplementedError: whatever a damaged byte led to
        raise DataError(f"cannot fetch {home}: {error}. {advice}") from error
    found = fsdd_hash(names, audio)
    if found != FSDD_SHA256:
        raise DataError(f"{home}: its {len(names)} clips have SHA-256 {found}, expected {FSDD_SHA256}: not kept.")
    digit, speaker, take = np.array(facts, np.uint8).T
    memory = io.BytesIO()
    np.savez_compressed(
        memory,
        audio=np.concatenate(audio),
        offsets=np.cumsum([0, *map(len, audio)]),
        digit=digit,
        speaker=speaker,
        speaker_names=np.array(SPEAKERS),
        take=take,
        sample_rate=8000,
    )
    write_atomic(path, memory.getvalue())
    return path


def fsdd_hash(names: Sequence[str], audio: Sequence[NDArray[np.int16]]) -> str:
    """SHA-256 of clips and their names, see FSDD_SHA256."""
    digest = hashlib.sha256()
    for name, x in zip(names, audio, strict=True):
        digest.update(f"{name}\n".encode() + x.astype("<i2").tobytes())
    return digest.hexdigest()


# ---------------------------------------------------------------- anybody's recordings


class _AtRate:
    """Clips that are read when they are asked for, at `sample_rate` Hz (0: each at its own)."""

    sample_rate = 0

    def at(self, sample_rate: int) -> None:
        """From now on at this rate in Hz."""
        self.sample_rate = hertz(sample_rate)

    def resampled(self, clip: Waveform) -> Waveform:
        return clip.resample(self.sample_rate or clip.sample_rate)


class AudioFolder(_AtRate, Folder):
    """All recordings (see `zoo.audio.reading`) below a folder, see `zoo.data.folder.Folder`.

    A recording is a sample, at full length. Once a window is set, which training does, one of two windows or more is as many
    samples as windows fit in: `dataset[i]` is always the same window, and `draw` one at a random place near it. Windows in
    which nothing is heard are left out.

    Args:
        speaker: regular expression with a group `speaker`, searched in each file's path below the folder, e.g.
            r"_(?P<speaker>[a-z]+)_": its names become a second condition.
        sample_rate: in Hz, see `at`.
        window: samples at that rate, see `cut`.

    Attributes:
        cache: of decoded files, None for none.
        recordings: what is known of each readable file.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str = "train",
        *,
        speaker: str | None = None,
        skip_unreadable: bool = False,
        sample_rate: int = 0,
        window: int = 0,
    ) -> None:
        self.sample_rate, self.cache, self.recordings = sample_rate, store(), dict[Path, Recording]()
        self.window, self.stretch, self.longer, self.windows = 0, 1.0, 0, list[tuple[int, float]]()
        super().__init__(folder, split, SUFFIXES, "clip", self._look, skip_unreadable, threads=threads_of_reading())
        notes: dict[str, list[str]] = {}
        for path in self.readable:
            note_channels(path, self.recordings[path].channels, self.recordings[path].channel, notes)
        _say(notes)
        self.speakers: dict[Path, str] = {}
        if speaker is not None:
            self.speakers = {p: _speaker(speaker, p.relative_to(self.folder).as_posix()) for p in self.readable}
            self.labels["speaker"] = sorted(set(self.speakers.values()))
        if window:
            self.cut(window)

    def _look(self, path: Path) -> None:
        self.recordings[path] = look(self.cache, path, self.sample_rate)

    def cut(self, window: int, stretch: float = 1.0) -> None:
        """From now on long recordings come as windows of so many samples; how many samples the data have changes with it.

        Args:
            stretch: how much more sound of a window is needed in training, for a codec that plays it faster.
        """
        if not self.sample_rate:
            raise ConfigError("windows of a folder of recordings have a rate: set it first, with at(sample_rate).")
        self.window, self.stretch, self.longer = whole(window, "window", 1), stretch, math.ceil(window * stretch)
        seconds = window / self.sample_rate
        self.windows = [(k, start) for k, p in enumerate(self.files) for start in self.recordings[p].starts(seconds)]

    def prepare_for(self, codec: nn.Module, recipe: Recipe) -> None:
        if isinstance(codec, ClipCodec):
            self.at(codec.sample_rate)
            self.cut(codec.samples, 1 + codec.speed)

    def held_out(self) -> AudioFolder | None:
        """The validation files, in windows of their own."""
        other = super().held_out()
        if isinstance(other, AudioFolder) and other.window:
            other.cut(other.window, other.stretch)
        return other if isinstance(other, AudioFolder) else None

    def __len__(self) -> int:
        return len(self.windows) if self.window else len(self.files)

    def given(self, i: int) -> dict[str, int]:
        """The label and the speaker, if there are any, of sample i: of the recording that it is a window of."""
        file = self.windows[i][0] if self.window else i
        found = super().given(file)
        if self.speakers:
            found["speaker"] = self.labels["speaker"].index(self.speakers[self.files[file]])
        return found

    def __getitem__(self, i: int) -> tuple[Waveform, dict[str, Any]]:
        return self._item(i, None)

    def draw(self, i: int, rng: torch.Generator) -> tuple[Waveform, dict[str, Any]]:
        return self._item(i, rng)

    def _item(self, i: int, rng: torch.Generator | None) -> tuple[Waveform, dict[str, Any]]:
        file, start = self.windows[i] if self.window else (i, 0.0)
        path = self.files[file]
        cond, recording, count = self.given(i), self.recordings[path], self.window
        if not self.window or recording.duration < 2 * self.window / self.sample_rate:
            clip = short(decoded(self.cache, path, self.sample_rate, path), self.sample_rate)
            return clip or self.resampled(read_clip(path)), cond
        if rng is not None:
            count = self.longer
            start = recording.somewhere(start, self.window / self.sample_rate, count / self.sample_rate, rng)
        return window(self.cache, recording, self.sample_rate, start, count), cond


class TableClips(_AtRate, Table):
    """Recordings of a Hub dataset or of Parquet files, see `zoo.data.table.open_rows`; labels where it has a column of them.

    No row is read before it is asked for, so a long recording is one sample here, too.
    """

    def __init__(self, rows: Rows) -> None:
        super().__init__(rows)
        self.said, self.cache = set[str](), store()

    def prepare_for(self, codec: nn.Module, recipe: Recipe) -> None:
        if isinstance(codec, ClipCodec):
            self.at(codec.sample_rate)

    def __getitem__(self, i: int) -> tuple[Waveform, dict[str, Any]]:
        data, name, cond = self.item(i, "audio")
        notes: dict[str, list[str]] = {}
        entry = decoded(self.cache, data, self.sample_rate, name)
        note_channels(name, entry.facts["channels"], entry.facts["channel"], notes)
        if fresh := {kind: lines for kind, lines in notes.items() if kind not in self.said}:
            self.said |= set(fresh)  # once, of the first row: nobody has read all of them
            _say(fresh)
        clip = short(entry, self.sample_rate)
        return clip or self.resampled(Waveform(entry.arrays["samples"].copy(), entry.facts["rate"])), cond


def _say(notes: Mapping[str, Sequence[str]]) -> None:
    """Warnings of what `read_clip` noted."""
    if mixed := notes.get("mixed"):
        warnings.warn(f"{len(mixed)} clip(s) are mixed down to mono: {mixed[0]}, ...", stacklevel=3)
    if cancelled := notes.get("cancelled"):
        warnings.warn(
            f"of {len(cancelled)} clip(s), whose channels cancel each other, only one is taken: {cancelled[0]}, ...",
            stacklevel=3,
        )


def _speaker(pattern: str, name: str) -> str:
    """The speaker in a file's name."""
    try:
        found = re.search(pattern, name)
        who = found["speaker"] if found else None
    except (re.error, IndexError) as error:
        raise ConfigError(f"speaker={pattern!r}: give a regular expression with a group (?P<speaker>...): {error}.") from None
    if not who:
        raise DataError(f"speaker={pattern!r} finds no speaker in {name!r}.")
    return who


def open_audio(
    source: str | Path,
    split: str = "train",
    *,
    speaker: str | None = None,
    skip_unreadable: bool = False,
    sample_rate: int = 0,
    window: int = 0,
    audio_column: str | None = None,
    label_column: str | None = None,
    **table: Any,
) -> Clips | AudioFolder | TableClips:
    """FSDD, the words, a folder of recordings, a Hub dataset or Parquet files, whichever `source` is.

    Args:
        source: a path; "hub:owner/name[@revision]"; or "fsdd", where nothing of that name exists: the public data,
            fetched once into $ZOO_CACHE (~/.cache/zoo).
        speaker, skip_unreadable, sample_rate, window: of a folder, see `AudioFolder`.
        audio_column, label_column, **table: of a Hub dataset or Parquet files, see `zoo.data.table.open_rows`.
    """
    if split not in SPLITS:
        raise one_of("split", split, SPLITS)
    columns = {"audio_column": audio_column, "label_column": label_column}
    if table_options(source, columns, table, "sound"):
        parts = (
            Part("audio", "Audio", ("audio", "sound", "speech", "wav"), audio_column),
            Part("label", "ClassLabel", ("label", "labels", "class", "word"), label_column, needed=False),
        )
        return TableClips(open_rows(source, split, parts, **table))
    if str(source) == PUBLIC and not Path(PUBLIC).exists():
        source = download_fsdd(cache_folder(PUBLIC))
    path = existing(source, f"a folder of recordings (WAV, FLAC, MP3, ...), {FSDD_FILE}, or {PUBLIC!r}")
    found = [path / n for n in (FSDD_FILE, WORDS_FILE) if (path / n).exists()]
    if len(found) > 1:
        raise DataError(f"{path} holds {found[0].name} and {found[1].name}: give the path of one of them.")
    path = found[0] if found else path
    if path.is_file():
        if path.suffix != ".npz":
            raise DataError(f"{path} is one file: give the folder that it lies in, or {FSDD_FILE}.")
        return (speech_commands if path.name == WORDS_FILE else fsdd)(path, split)
    return AudioFolder(path, split, speaker=speaker, skip_unreadable=skip_unreadable, sample_rate=sample_rate, window=window)
