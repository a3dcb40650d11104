"""A sound file as a mono clip: whole, heard as it was recorded, or refused by name."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.audio.waveform import Waveform, need
from zoo.errors import DataError

#: what libsndfile decodes; {its name of a format: suffixes}
FORMATS = {
    "WAV": (".wav", ".wave"),
    "WAVEX": (),
    "RF64": (".rf64",),
    "FLAC": (".flac",),
    "OGG": (".ogg", ".oga", ".opus"),
    "MP3": (".mp3",),
    "MPEG": (),
    "AIFF": (".aiff", ".aif", ".aifc"),
    "AU": (".au", ".snd"),
    "CAF": (".caf",),
}
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
#: formats and ways to write samples of which any part can be read, and is the same as when all is read. Lossy ones are not:
#: what a decoder makes of a part hangs on what it has decoded before
SEEKING, EXACT = ("WAV", "WAVEX", "RF64", "FLAC", "AIFF", "AU", "CAF"), ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
#: below this peak a clip counts as silent: one step of 16 bits is 3e-5
SILENT = 2e-4
#: above this peak samples are not those of a full scale of 1: whole numbers of 16 bits that were written as floats
LOUDEST = 16.0
#: sample rates in Hz that are read; a damaged header of another one would make resampling take all memory
RATES = range(1_000, 1_536_001)
#: values (samples of all channels) of the longest file that is read, 2 GB as float32; and of a block of it
MOST_VALUES, BLOCK = 2**29, 2**20
#: of the mean of channels, seconds of a window, and below which share of the loudest channel's power in a window they cancel
WINDOW, CANCELLED = 0.05, 0.01


@dataclass
class Sound:
    """A whole sound file.

    Attributes:
        samples: (L,) float32, of several channels the mean, see `mono`.
        sides: (2, L) float32, both channels of a stereo file, where they were asked for.
        sample_rate: Hz.
        channels: of the file.
        channel: the one that was taken, where it is not the mean of all.
        seeks: whether any part of the file can be read by itself, and is then the same to the bit.
        packed: whether that takes long, since the samples are compressed.
    """

    samples: NDArray[np.float32]
    sample_rate: int
    channels: int
    channel: int | None
    seeks: bool
    packed: bool
    sides: NDArray[np.float32] | None = None


def read_clip(
    path: str | Path, data: bytes | None = None, notes: dict[str, list[str]] | None = None, *, stereo: bool = False
) -> Waveform:
    """Read a whole sound file, or its bytes `data`; of several channels the mean, see `mono`.

    Args:
        stereo: a file of two channels is a stereo clip.
        notes: gets a line on a file of several channels, under "mixed" or "cancelled".

    Raises:
        DataError: empty, silent or truncated, NaN, a header that contradicts itself, or not a sound file; the message names
            `path`.
    """
    sound = read_sound(path, data, stereo=stereo)
    if sound.sides is not None:
        return Waveform.stereo(sound.sides, sound.sample_rate)
    if notes is not None:
        note_channels(path, sound.channels, sound.channel, notes)
    return Waveform(sound.samples, sound.sample_rate)


def note_channels(path: str | Path, channels: int, channel: int | None, notes: dict[str, list[str]]) -> None:
    """A line on a file of several channels, under "mixed" or "cancelled"."""
    if channel is not None:
        notes.setdefault("cancelled", []).append(f"channel {channel + 1} of {path}")
    elif channels > 1:
        notes.setdefault("mixed", []).append(f"{path} has {channels} channels")


def read_sound(path: str | Path, data: bytes | None = None, *, stereo: bool = False) -> Sound:
    """As `read_clip`, with what else is known of the file."""
    soundfile = need("soundfile")
    try:
        data = Path(path).read_bytes() if data is None else data
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    if not data:
        raise DataError(f"{path}: the file is empty")
    try:
        mended = whole(_untagged(data))
        with soundfile.SoundFile(_Memory(mended)) as file:
            if file.format not in FORMATS:
                raise DataError(f"it is a {file.format} file; {', '.join(SUFFIXES)} are read")
            x, rate = _samples(file), file.samplerate
            seeks = mended is data and file.seekable() and file.format in SEEKING and file.subtype.startswith(EXACT)
            packed = file.format == "FLAC" or not seeks
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except Exception as error:  # libsndfile's own error, and what its Python side meets in a header that is none
        raise DataError(f"{path}: not a readable sound file ({getattr(error, 'error_string', None) or repr(error)})") from error
    if not x.size or not np.isfinite(x).all():
        raise DataError(f"{path}: holds {'NaN or infinity' if x.size else 'no samples'}")
    if rate not in RATES:
        raise DataError(f"{path}: {rate} Hz; rates of {RATES[0]:,} to {RATES[-1]:,} Hz are read")
    if np.abs(x).max() > LOUDEST:
        raise DataError(f"{path}: samples up to {np.abs(x).max():g}, where full scale is 1. Divide them, by 32768 for 16 bits")
    samples, channel = mono(x, rate)
    if np.abs(samples - samples.mean()).max() < SILENT:
        raise DataError(f"{path}: silent")
    return Sound(samples, rate, len(x), channel, seeks, packed, x if stereo and len(x) == 2 else None)


def read_part(path: Path, start: int, count: int, channel: int | None, stamp: tuple[int, int]) -> NDArray[np.float32]:
    """Samples `start` to `start + count` of a file that `read_sound` read whole and found to be one that seeks.

    Args:
        channel: as `read_sound` found it: the one to take, or None for the mean.
        stamp: size in bytes and time of the last change (ns) of the file that was read whole.

    Raises:
        DataError: the file is another one by now, or cannot be read.
    """
    soundfile = need("soundfile")
    try:
        about = path.stat()
        if (about.st_size, about.st_mtime_ns) != stamp:
            raise DataError(f"{path}: was changed while it was in use. Start again")
        with soundfile.SoundFile(path) as file:
            file.seek(start)
            x = file.read(count, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: libsndfile's own
        why = getattr(error, "error_string", None) or getattr(error, "strerror", None) or error
        raise DataError(f"{path}: {why}") from error
    if len(x) < count:
        raise DataError(f"{path}: truncated, {len(x)} of {count} samples from {start} on")
    return np.asarray(x.T.mean(0) if channel is None else x[:, channel].copy())


class _Memory(io.BytesIO):
    """Bytes for libsndfile, which seeks before the start of a damaged file: Python would print the error beside ours."""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


def _samples(file: Any) -> NDArray[np.float32]:
    """(channels, samples) of an open file, block by block: what its header says may be more than memory holds."""
    blocks, values = [], 0
    while len(block := file.read(max(1, BLOCK // file.channels), dtype="float32", always_2d=True)):
        blocks.append(block)
        values += block.size
        if values > MOST_VALUES:
            raise DataError(f"longer than {MOST_VALUES // file.channels:,} samples. Cut it into clips first")
    count = values // file.channels
    if count < file.frames:
        raise DataError(f"truncated, {count} of {file.frames} samples")
    return np.concatenate(blocks).T if blocks else np.zeros((file.channels, 0), np.float32)


def mono(x: NDArray[np.float32], sample_rate: int) -> tuple[NDArray[np.float32], int | None]:
    """One channel (L,) of several (channels, L), and which one was taken where their mean would not do.

    It is the mean, unless channels cancel each other (one of two wires swapped): where windows that hold a tenth of the
    sound's power would lose nearly all of it, the loudest channel is taken instead.
    """
    mixed = x.mean(0)
    if len(x) == 1:
        return x[0].copy(), None
    size = max(1, min(x.shape[1], round(WINDOW * sample_rate)))
    starts = np.arange(0, x.shape[1], size)

    def power(y: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.add.reduceat((y - y.mean(-1, keepdims=True)).astype(np.float64) ** 2, starts, axis=-1)

    channels = power(x)
    loudest = channels.max(0)
    if loudest[power(mixed) < CANCELLED * loudest].sum() <= 0.1 * loudest.sum():
        return mixed, None
    best = int(channels.sum(-1).argmax())
    return x[best].copy(), best


# ---------------------------------------------------------------- headers: libsndfile reads a part of a file without an error


#: chunks that are known to stand behind the samples of a WAV file
TRAILING = (
    b"LIST", b"id3 ", b"ID3 ", b"bext", b"cue ", b"smpl", b"fact", b"PEAK", b"JUNK", b"junk", b"PAD ", b"FLLR", b"iXML",
    b"_PMX", b"inst", b"acid", b"afsp", b"cart", b"chna", b"axml", b"umid", b"minf", b"elm1", b"regn", b"DGDA", b"DISP",
    b"plst", b"levl", b"note", b"labl", b"ltxt", b"strc", b"SAUR", b"r64m", b"LGWV", b"AFAn", b"Fake",
)  # fmt: skip
#: lengths from here on stand for "as long as it goes": writers to a pipe put 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF, less a header
STREAM = 0x7FFFE000


def _untagged(data: bytes) -> bytes:
    """The bytes without the ID3 tags in front: behind those libsndfile loses as many bytes of a WAV's end, without a word."""
    while data[:3] == b"ID3" and len(data) >= 10 and not any(byte & 128 for byte in data[6:10]):
        size = sum((byte & 127) << 7 * (3 - i) for i, byte in enumerate(data[6:10]))
        data = data[10 + size + (10 if data[5] & 16 else 0) :]  # a footer may follow
    return data


def whole(data: bytes) -> bytes:
    """The bytes of a sound file that is whole, as far as its header tells; a length that a pipe left open is filled in.

    Raises:
        DataError: truncated, or lengths in its header that cannot be.
    """
    if data[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and data[8:12] == b"WAVE":
        return _whole_wav(data)
    if data[:4] == b"OggS":
        _whole_ogg(data)
    elif data[:4] == b"FORM" and data[8:12] in (b"AIFF", b"AIFC"):
        _whole_aiff(data)
    elif data[:4] == b"fLaC" and len(data) > 26 and not (data[21] & 15 or any(data[22:26])):  # libsndfile cannot read it
        raise DataError("its header does not say how long it is, as of a pipe. Convert it to WAV")
    elif data[:4] == b".snd":
        start, size = struct.unpack_from(">II", data.ljust(12, b"\0"), 4)
        if size != 0xFFFFFFFF:
            _fits(size, len(data) - start)
            if len(data) - start > size + 1:
                raise DataError(f"its header says {size} bytes of samples, and {len(data) - start} follow")
    elif data[:4] == b"caff":
        place, start = 8, 0
        while place + 12 <= len(data):
            name, size = data[place : place + 4], struct.unpack_from(">q", data, place + 4)[0]
            if name == b"data":
                _fits(max(0, size), len(data) - place - 12)  # -1: to the end
                if size == -1:
                    break
                start = place + 12 + size
            if size < 0:
                raise DataError(f"a chunk of {size} bytes")
            place += 12 + size
        if start and place not in (len(data), len(data) + 1) and data[start:].strip(b"\0"):
            raise DataError(f"{len(data) - start} bytes follow its samples that are no chunks. Save it anew")
    return data


def _fits(size: int, there: int) -> None:
    """Samples of `size` bytes where `there` are left."""
    if size > there:
        raise DataError(f"truncated, {max(0, there)} of {size} bytes of samples")


def _whole_wav(data: bytes) -> bytes:
    """As `whole`. Only the chunk of samples counts: the length of all, at the file's start, is often off by one or more."""
    order, place, wide = ">" if data[:4] == b"RIFX" else "<", 12, 0
    while place + 8 <= len(data):
        name, size = data[place : place + 4], struct.unpack_from(f"{order}I", data, place + 4)[0]
        if name == b"ds64" and place + 24 <= len(data):  # lengths of 64 bits, of RF64
            wide = struct.unpack_from("<Q", data, place + 16)[0]
        if name == b"data":
            break
        place += 8 + size + size % 2
    else:
        return data  # libsndfile says what is wrong
    start, left = place + 8, len(data) - place - 8
    if data[:4] in (b"RF64", b"BW64") and size == 0xFFFFFFFF:
        _fits(wide, left)
        _ends(data, start, wide, order)
        return data
    if (size == 0 and left and not _chunks(data, start, order)) or (size >= STREAM and size > left):
        if left > STREAM:
            return data
        size = left
        sizes = struct.pack(f"{order}I", len(data) - 8), struct.pack(f"{order}I", size)
        return data[:4] + sizes[0] + data[8 : place + 4] + sizes[1] + data[start:]
    _fits(size, left)
    _ends(data, start, size, order)
    return data


def _ends(data: bytes, start: int, size: int, order: str) -> None:
    """Samples of `size` bytes from `start` on, behind which more may stand, but no samples."""
    if not any(_chunks(data, start + size + pad, order) for pad in {size % 2, 0}):
        raise DataError(f"its header says {size} bytes of samples, and {len(data) - start} follow. Save it anew")


def _chunks(data: bytes, place: int, order: str) -> bool:
    """Whether from `place` on there is nothing but further chunks, tags or zeros, rather than samples.

    A chunk that nobody knows must fit; of a known one the end may be cut off.
    """
    while place < len(data):
        rest = data[place : place + 8]
        if rest[:3] in (b"TAG", b"ID3") or not data[place:].strip(b"\0"):
            return True
        if len(rest) < 8:
            return False
        size = struct.unpack_from(f"{order}I", rest, 4)[0]
        foreign = (
            not all(32 <= byte < 127 for byte in rest[:4]) or rest[:4] in (b"data", b"SSND") or place + 8 + size > len(data)
        )
        if foreign and rest[:4] not in TRAILING:
            return False
        place += 8 + size + size % 2
    return True


def _whole_aiff(data: bytes) -> None:
    """As `whole`, of AIFF and AIFC."""
    place, needed = 12, 0
    while place + 8 <= len(data):
        name, size = data[place : place + 4], struct.unpack_from(">I", data, place + 4)[0]
        if name == b"COMM" and place + 16 <= len(data):
            channels, frames, bits = struct.unpack_from(">hIh", data, place + 8)
            if data[8:12] == b"AIFF":  # the other one may be compressed
                needed = frames * max(0, channels) * -(-max(0, bits) // 8)
        if name == b"SSND":
            _fits(size, len(data) - place - 8)
            if needed and not -2 <= size - 8 - needed <= 8192:  # the samples may be padded to a block
                raise DataError(f"its header says {needed} bytes of samples and {size - 8} of them. Save it anew")
            _ends(data, place + 8, size, ">")
        place += 8 + size + size % 2


def _whole_ogg(data: bytes) -> None:
    """As `whole`, of Ogg: a page carries the flag "end of stream", and a table of its own length."""
    place, flags, first = 0, 0, 0
    while data[place : place + 4] == b"OggS" and len(data) >= place + 27:
        count = data[place + 26]
        flags = data[place + 5]
        first += bool(flags & 2)
        place += 27 + count + sum(data[place + 27 : place + 27 + count])
        if place > len(data):
            raise DataError("truncated, its stream has no end")
    if not flags & 4:
        raise DataError("truncated, its stream has no end")
    if first > 1:
        raise DataError(f"it holds {first} streams; only the first would be read. Save them one by one")
