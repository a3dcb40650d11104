"""Small stand-ins of the audio data sets, in their own layouts."""

import numpy as np
import pytest

from zoo.audio.recipes import SPEAKERS, WORDS

RATE, TAKES = 8000, (0, 5, 10, 11)


def tone(digit, speaker, take, seconds=0.15):
    """A clip that tells what it is: a pitch for the digit, a timbre for the speaker, a phase for the take."""
    t = np.arange(int(seconds * RATE)) / RATE
    x = sum(np.sin(2 * np.pi * (150 + 90 * digit) * k * t + take) / k**speaker for k in range(1, 4))
    return np.int16(6000 * x / np.abs(x).max())


@pytest.fixture(scope="session")
def fsdd_file(tmp_path_factory):
    """240 clips as `fsdd_8k.npz` holds them: ten digits, six speakers, four takes, of which 0 tests and 5 validates."""
    rows = [(d, s, t) for d in range(10) for s in range(6) for t in TAKES]
    facts = np.array(rows, np.uint8).T
    audio = [tone(*row) for row in rows]
    path = tmp_path_factory.mktemp("fsdd") / "fsdd_8k.npz"
    np.savez(
        path,
        audio=np.concatenate(audio),
        offsets=np.cumsum([0, *map(len, audio)]),
        digit=facts[0],
        speaker=facts[1],
        speaker_names=np.array(SPEAKERS),
        take=facts[2],
        is_test=facts[2] < 5,
        sample_rate=RATE,
    )
    return path


@pytest.fixture(scope="session")
def words_file(tmp_path_factory):
    """80 clips of 0.2 s of 20 speakers as `speech_commands_4w_16k.npz` holds them."""
    rng = np.random.default_rng(0)
    speaker = np.arange(80, dtype=np.int16) % 20
    path = tmp_path_factory.mktemp("words") / "speech_commands_4w_16k.npz"
    np.savez(
        path,
        audio=rng.integers(-9000, 9000, (80, 3200), dtype=np.int16),
        label=np.uint8(np.arange(80) // 20),
        label_names=np.array(WORDS),
        speaker=speaker,
        is_test=speaker >= 15,
        sample_rate=16000,
    )
    return path
