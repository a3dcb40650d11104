"""How good generated clips are (see `zoo.evaluation.judged`).

Everything is measured on what a saved 16-bit file holds, and every real clip goes through the codec first, as samples
do: what the codec costs shows beside the accuracy, in the one of raw clips.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.audio.codec import PEAK, transforms
from zoo.audio.judge import Judge
from zoo.contract.samples import Samples
from zoo.errors import ConfigError, DataError
from zoo.evaluation import judged
from zoo.evaluation.judge import Features

#: a voice counts as present from this share of the clips on
PRESENT = 0.02
#: samples whose distances are averaged, at most
PAIRS = 2000
#: copies are looked for in spectrograms of so many bands and steps of so many ms, down to this power below the maximum: of
#: a few that were tried, the one that finds most (74 %) of training clips moved by 48 ms and played up to 6 % faster or slower
BANDS, STEPS, STEP_MS, QUIET = 14, 20, 32, 1e-4


def quantise(clips: Tensor) -> Tensor:
    """Clips at the 65,536 steps of a saved file, float32 of the same shape; outside -1..1 they are clipped, as there.

    Raises:
        DataError: not floating point, or NaN or infinity.
    """
    if not clips.is_floating_point():
        raise DataError(f"clips must be floating point in [-1, 1], got {clips.dtype}; use x / 32768")
    if not clips.isfinite().all():
        raise DataError("clips hold NaN or infinity: the sampler or the training went wrong")
    return (clips.detach().float() * 32768).round().clamp(-32768, 32767) / 32768


class Evaluator(judged.JudgedEvaluator):
    """Clips (n, L) in [-1, 1]; copies are looked for among coarse spectrograms around the middle of the sound.

    Its own metrics: `diversity`, the mean distance of two clips in the judge's features, relative to the reference's;
    with a speaker judge `voices`, how many of its voices it finds in at least 2 % of the clips.

    Args:
        judge, reference, train, split, seed: as for `JudgedEvaluator`; the real clips went through the codec.
        raw: the reference's clips (N, L) without the codec.
        speakers: a judge of voices, where the data has few.
        sample_rate: of the clips in Hz; default: the judge's.
    """

    noun = "clips"

    def __init__(
        self,
        judge: Judge | Features,
        reference: tuple[Tensor, Tensor],
        train: Tensor,
        *,
        raw: Tensor,
        speakers: Judge | None = None,
        split: str = "test",
        seed: int = 0,
        own: judged.Own | None = None,
        sample_rate: int | None = None,
    ) -> None:
        self.speakers = speakers
        self.better = judged.JudgedEvaluator.better | {"diversity": "near 1"}
        if speakers is not None:
            self.better["voices"] = "higher"
        rate = getattr(judge, "sample_rate", None) if sample_rate is None else sample_rate
        if rate is None:
            raise ConfigError("features say no sample_rate: give the one of the clips, in Hz.")
        step = rate * STEP_MS // 1000  # powers come every quarter of one, for `points`
        self._mel = transforms().MelSpectrogram(
            rate, step, hop_length=step // 4, n_mels=BANDS, norm="slaney", mel_scale="slaney", pad_mode="constant"
        )
        super().__init__(judge, reference, train, split=split, seed=seed, own=own)
        self.raw_accuracy = None
        if judge.class_names:
            guessed = judge.features(self.prepare(raw))[1].argmax(1)
            self.raw_accuracy = (guessed == self.labels).double().mean().item()

    def prepare(self, x: Tensor) -> Tensor:
        return quantise(x)

    def noise(self, n: int, generator: torch.Generator) -> Tensor:
        x = torch.randn(n, self.reference.shape[1], generator=generator)
        return quantise(x * (PEAK / x.abs().amax(1, keepdim=True)))

    def points(self, x: Tensor) -> Tensor:
        """ln of power in coarse spectrograms (n, BANDS * STEPS) around the middle of the sound, loudness taken away."""
        return torch.cat([self._points(chunk) for chunk in x.split(500)])

    def _points(self, x: Tensor) -> Tensor:
        power, fine = self._mel(x), 4 * STEPS
        power = power / power.amax((1, 2), keepdim=True).clamp(min=1e-12)
        weight = power.sum(1).sqrt()
        middle = (weight @ torch.arange(weight.shape[1]).float()) / weight.sum(1).clamp(min=1e-12)
        columns = middle.round().long()[:, None] + torch.arange(fine)  # of what is padded by half of them in front
        power = torch.nn.functional.pad(power, (fine // 2, fine // 2)).gather(2, columns[:, None].expand(-1, BANDS, -1))
        return (power.unflatten(2, (STEPS, 4)).mean(3) + QUIET).log().flatten(1)

    def extra(self, x: Tensor, features: Tensor) -> dict[str, float]:
        own = {"diversity": self.spread(features) / self.spread(self._reference_features)}
        if self.speakers is not None:
            own["voices"] = float((self.voices(x).double() >= PRESENT * len(x)).sum())
        return own

    def spread(self, features: Tensor) -> float:
        """Mean Euclidean distance of two different rows, of up to PAIRS rows drawn at random."""
        return torch.pdist(features[self._draw(len(features), PAIRS)].double()).mean().item()

    def voices(self, x: Tensor) -> Tensor:
        """How often each voice is found in prepared clips (n, L): (speakers,) int64."""
        if self.speakers is None:
            raise DataError("there is no judge of voices for these clips")
        return self.speakers.features(x)[1].argmax(1).bincount(minlength=len(self.speakers.class_names))

    def measure(self, made: Samples, **options: Any) -> dict[str, Any]:
        """As `JudgedEvaluator.measure`; where voices were asked for, the protocol says how often they are found."""
        result = super().measure(made, **options)
        asked = made.conditions.get("speaker", [None])
        if self.speakers is not None and None not in asked:
            voices = torch.tensor([self.speakers.class_names.index(v) for v in asked])
            heard = self.speakers.features(self.prepare(made.tensor))[1].argmax(1)
            result["protocol"]["voice_accuracy"] = (heard == voices).double().mean().item()
        return result

    def evaluate(self, samples: Tensor, labels: Tensor) -> dict[str, Any]:
        """As `zoo.evaluation.judged.JudgedEvaluator.evaluate`.

        Further keys: "confusion" with the counts {asked: {heard: n}}; with a speaker judge "voices" with {voice: {"heard",
        "ceiling"}}, the shares of clips and of reference clips; metrics["accuracy"] has "raw", of real clips without codec.
        """
        result = super().evaluate(samples, labels)
        if self.raw_accuracy is None:
            return result
        result["metrics"]["accuracy"]["raw"] = self.raw_accuracy
        x, names = self.prepare(samples.cpu()), self.judge.class_names
        heard = self.judge.features(x)[1].argmax(1)
        counts = torch.stack([heard[labels.cpu() == c].bincount(minlength=len(names)) for c in range(len(names))])
        result["confusion"] = {
            name: {other: int(n) for other, n in zip(names, row, strict=True) if n}
            for name, row in zip(names, counts, strict=True)
        }
        if self.speakers is not None:
            own, real = self.voices(x), self.voices(self.reference)
            result["voices"] = {
                name: {"heard": int(a) / len(x), "ceiling": int(b) / len(self.reference)}
                for name, a, b in zip(self.speakers.class_names, own, real, strict=True)
            }
        return result

    def protocol(self, n: int) -> dict[str, Any]:
        lines = {
            "sound": "all clips, real ones too, through the codec and rounded to 16 bits, as in a saved file; raw accuracy is "
            f"that of the real {self.split} clips without the codec",
            "diversity": "mean distance of two clips in the judge's features, relative to the reference's, "
            f"of up to {PAIRS} clips drawn at random",
            "copies": f"looked for in ln mel power, {BANDS} bands, {STEPS} steps of {STEP_MS} ms around the middle of the "
            "sound: most training clips that are moved and played up to 6 % faster or slower are still found",
            "floor": f"{n} clips of white noise; for copying, training clips",
        }
        if self.speakers is None:
            return lines
        value = self.speakers.card.get("accuracy", {}).get("test", {}).get("value")
        return lines | {"voices": f"heard in {PRESENT:.0%} of the clips or more by a judge of test accuracy {value}"}
