"""How well generated pictures show the captions and styles that were asked for, see `zoo.image.caption_judge`.

Two sorts of prompts are measured apart. *pairs*: the caption is in training in other styles. *captions*: it is in training in
no style. Beside real pictures (ceiling) and real pictures with shuffled captions (floor) stands *retrieval*, what can be had
without a generator: the training picture of the style that was asked for whose caption is nearest by word vectors.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from zoo.contract.domain import Generator
from zoo.contract.samples import Samples
from zoo.errors import ConfigError, DataError, one_of
from zoo.evaluation import judged
from zoo.evaluation.distances import nearest_distances, wilson_interval
from zoo.evaluation.evaluate import draw, sample_timed
from zoo.image.caption_judge import CaptionJudge, ranks
from zoo.image.judge import fitted
from zoo.image.metrics import quantise
from zoo.image.reconstruction import Further, Reconstructed

#: the sorts of prompts
PARTS = ("pairs", "captions")
#: of how many captions the own one may be nearest, for R@1 and R@5
TOP = (1, 5)
#: pixels of a side at which copies are looked for
COPY_SIDE = 32


@dataclass
class Captioned:
    """Real pictures with captions and styles.

    Attributes:
        pictures: (N, C, H, W) float in [-1, 1].
        captions: of each.
        style: number of each one's style (N,) int64.
        parts: of each held-out one its sort, see `PARTS`; of training pictures "train".
    """

    pictures: Tensor
    captions: list[str]
    style: Tensor
    parts: list[str]


class Retrieval:
    """R@k of pictures among the captions of one sort of prompts.

    Args:
        judge: places captions.
        captions: of the prompts, with repetitions.
    """

    def __init__(self, judge: CaptionJudge, captions: Sequence[str]) -> None:
        self.names = sorted(set(captions))
        self.numbers = {caption: i for i, caption in enumerate(self.names)}
        self.places = judge.captions(self.names)

    def ranks(self, places: Tensor, captions: Sequence[str]) -> Tensor:
        """How many captions are nearer than its own one to each picture at `places` (n, dim): (n,) int64."""
        return ranks(places, self.places, torch.tensor([self.numbers[c] for c in captions]))

    def nearest(self, places: Tensor) -> list[str]:
        """The caption that is nearest to each picture."""
        return [self.names[int(i)] for i in (places.double() @ self.places.double().T).argmax(1)]


class Evaluator(judged.JudgedEvaluator):
    """Pictures of a text condition `text`, and of a label `style` where the model has it.

    Args:
        judge: of pictures and captions; its classes are the styles.
        held: real held-out pictures: what is asked for, and the reference.
        train: those that the generator was trained on.
        split: what `held` is, for the protocol.
        seed: of the random subsets.

    Options of the evaluation: `each`, samples of one prompt (then variety is measured, too), and `part`, one of `PARTS`.
    """

    noun = "pictures"
    judge: CaptionJudge

    def __init__(self, judge: CaptionJudge, held: Captioned, train: Captioned, *, split: str = "test", seed: int = 0) -> None:
        super().__init__(judge, (held.pictures, held.style), train.pictures, split=split, seed=seed)
        # the pictures as they were given are not kept beside the prepared ones: they are half a gigabyte
        self.held, self.trained = replace(held, pictures=self.reference), replace(train, pictures=self.train)
        self.parts = [part for part in PARTS if part in held.parts]
        if not self.parts:
            raise DataError(
                "none of the held-out pictures is of a pair or a caption that training has not: nothing can be asked."
            )
        #: rows of the held-out pictures by what is asked for
        self.rows: dict[tuple[str, int | None], list[int]] = defaultdict(list)
        for i, (caption, style) in enumerate(zip(held.captions, held.style.tolist(), strict=True)):
            self.rows[caption.casefold(), style].append(i)
            self.rows[caption.casefold(), None].append(i)
        self.captions = {part: Retrieval(judge, [held.captions[i] for i in self._of(part)]) for part in self.parts}
        self.measured = len(held.captions)

    def check(self, model: Generator) -> None:
        if "text" not in model.recipe.conditions:
            raise ConfigError(f"{model!r} has no condition 'text': it cannot be asked for captions.")
        styles = model.recipe.classes("style")
        if styles and (wrong := [s for s in styles if s not in self.judge.class_names]):
            raise ConfigError(
                f"{model!r} draws in the style {wrong[0]!r}: the judge knows {', '.join(self.judge.class_names)}."
            )

    # ---------------------------------------------------------------- what a domain knows

    def prepare(self, x: Tensor) -> Tensor:
        return quantise(x)

    def points(self, x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(x, min(COPY_SIDE, x.shape[-1])).flatten(1)

    def noise(self, n: int, generator: torch.Generator) -> Tensor:
        return quantise(torch.rand(n, *self.reference.shape[1:], generator=generator) * 2 - 1)

    # ---------------------------------------------------------------- asking

    def asked(self, model: Generator, n: int, seed: int, each: int = 1, part: str = "all") -> dict[str, Any]:
        """The prompts of the held-out pictures in a random order, each `each` times in a row."""
        rows = [i for i, p in enumerate(self.held.parts) if part in ("all", p)]
        if not rows:
            raise one_of("part", part, ["all", *self.parts])
        order = [rows[k] for k in draw(len(rows), len(rows), seed)]
        chosen = [order[i // each % len(order)] for i in range(n)]
        asked: dict[str, Any] = {"text": [self.held.captions[i] for i in chosen]}
        if "style" in model.recipe.conditions:
            asked["style"] = [self.judge.class_names[int(self.held.style[i])] for i in chosen]
        return asked

    def generate(
        self, model: Generator, n: int, *, seed: int, each: int = 1, part: str = "all", **settings: Any
    ) -> tuple[Samples, dict[str, Any]]:
        if isinstance(each, bool) or not isinstance(each, int) or each < 1:
            raise ConfigError(f"each={each!r}: give how many samples of each prompt are drawn, 1 or more.")
        made, how = sample_timed(model, n, seed=seed, **self.asked(model, n, seed, each, part) | settings)
        return made, how | {"each": f"{each} of each prompt", "part": part}

    def rows_of(self, texts: Sequence[Any], styles: Sequence[Any]) -> list[int]:
        """The held-out pictures that have the captions and styles of samples; several of the same take turns.

        Raises:
            DataError: a caption, or a caption in a style, that no held-out picture has.
        """
        turns: dict[tuple[str, int | None], int] = defaultdict(int)
        found = []
        for text, style in zip(texts, styles, strict=True):
            if style is not None and style not in self.judge.class_names:
                raise one_of("style", style, self.judge.class_names, DataError)
            key = (str(text).casefold(), None if style is None else self.judge.class_names.index(style))
            rows = self.rows.get(key)
            if text is None or not rows:
                what = f"{text!r}" if style is None else f"{text!r} in the style {style!r}"
                raise DataError(f"samples of {what} cannot be measured: no real {self.split} picture shows it.")
            found.append(rows[turns[key] % len(rows)])
            turns[key] += 1
        return found

    # ---------------------------------------------------------------- measuring

    def measure(self, made: Samples, **options: Any) -> dict[str, Any]:
        texts = made.conditions.get("text", [None] * len(made))
        styles = made.conditions.get("style", [None] * len(made))
        pictures = torch.stack([torch.as_tensor(picture.numpy()) for picture in made])
        result = self.judge_prompts(
            fitted(pictures, self.judge.shape), self.rows_of(texts, styles), styled="style" in made.conditions
        )
        if tuple(pictures.shape[1:]) != self.judge.shape:
            result["protocol"]["size"] = f"{tuple(pictures.shape[1:])}, resized with a low-pass to {self.judge.shape}"
        return result

    def judge_prompts(self, samples: Tensor, rows: Sequence[int], *, styled: bool = True) -> dict[str, Any]:
        """All figures of samples (n, C, H, W) that were asked to be as the held-out pictures `rows`.

        Args:
            styled: whether a style was asked for; else there is no accuracy.
        """
        row = torch.tensor(rows)
        result = self.evaluate(samples, self.labels[row])
        base: dict[str, dict[str, Any]] = result["metrics"]
        samples = self.prepare(samples)
        features, logits = self.judge.features(samples)
        copied = self.train[self.retrieved[row]]
        copied_features, right = self._judged(copied, self.labels[row])
        values = self.compare(copied, copied_features) | self._copies(copied) | {"accuracy": right.double().mean().item()}
        for name, metric in base.items():
            metric["retrieval"] = values[name]
        metrics = self._found(features, copied_features, row)
        style = base.pop("accuracy")
        if styled:
            style["floor"] = self._shuffled_styles
            metrics["style"] = style
        if (variety := self._variety(features, rows)) is not None:
            metrics["variety"] = variety
        result["metrics"] = metrics | base | self._near(samples, copied, row)
        result["per_class"] = result["per_class"] if styled else {}
        result["prompts"] = self._prompts(features, logits, row)
        return result

    def _found(self, features: Tensor, copied: Tensor, row: Tensor) -> dict[str, dict[str, Any]]:
        """R@k of each sort of prompts.

        Args:
            features: of the samples (n, width); copied: of what retrieval gives in their place.
        """
        metrics: dict[str, dict[str, Any]] = {}
        for part in self.parts:
            mine = torch.tensor([self.held.parts[i] == part for i in row])
            if not mine.any():
                continue
            own, among = [self.held.captions[i] for i in row[mine]], self.captions[part]
            found, retrieved = (among.ranks(self.judge.places(f[mine]), own) for f in (features, copied))
            for k in TOP:
                hits = int((found < k).sum())
                metrics[f"r{k}_{part}"] = {
                    "value": hits / len(own),
                    "ceiling": (self._real_ranks[part] < k).double().mean().item(),
                    "retrieval": (retrieved < k).double().mean().item(),
                    "floor": (self._shuffled_ranks[part] < k).double().mean().item(),
                    "better": "higher",
                    "interval": list(wilson_interval(hits, len(own))),
                }
        return metrics

    def _prompts(self, features: Tensor, logits: Tensor, row: Tensor) -> list[dict[str, Any]]:
        """What the judge says of each sample: the place of its own caption (1 is a hit), the nearest one, the style."""
        places, names, told = self.judge.places(features), self.judge.class_names, []
        for i, r in enumerate(row.tolist()):
            among = self.captions[self.held.parts[r]]
            told.append(
                {
                    "text": self.held.captions[r],
                    "style": names[int(self.labels[r])],
                    "part": self.held.parts[r],
                    "rank": 1 + int(among.ranks(places[i : i + 1], [self.held.captions[r]])),
                    "nearest": among.nearest(places[i : i + 1])[0],
                    "style_seen": names[int(logits[i].argmax())],
                }
            )
        return told

    def _near(self, samples: Tensor, copied: Tensor, row: Tensor) -> dict[str, dict[str, Any]]:
        """Share of copies among training pictures of the style, or of the caption, that was asked for.

        Samples that have no such training pictures do not count.
        """
        metrics: dict[str, dict[str, Any]] = {}
        for name, (asked, known) in self._keys.items():
            real = self._nearest(self.points(self.reference), asked, known)
            there = real.isfinite()
            if not there[row].any():
                continue
            limit = real[there].quantile(judged.COPY_SHARE)
            found, retrieved = (self._nearest(self.points(x), asked[row], known)[there[row]] for x in (samples, copied))
            near = {"value": found, "ceiling": real[there], "retrieval": retrieved}
            metrics[name] = {k: (v < limit).double().mean().item() for k, v in near.items()} | {"floor": 1.0, "better": "lower"}
        return metrics

    def _nearest(self, points: Tensor, asked: Tensor, known: Tensor) -> Tensor:
        """Distance (n,) of each row of `points` to the nearest training picture of the same key; infinity where none is."""
        found = torch.full((len(points),), math.inf, dtype=torch.double)
        for key in asked.unique():
            mine, theirs = asked == key, known == key
            if theirs.any():
                found[mine] = nearest_distances(points[mine], self._train_points[theirs])[0]
        return found

    def _variety(self, features: Tensor, rows: Sequence[int]) -> dict[str, Any] | None:
        """How different the features (n, width) of samples of one prompt are; None where no prompt has two."""
        by: dict[int, list[int]] = defaultdict(list)
        for i, row in enumerate(rows):
            by[row].append(i)
        several = [mine for mine in by.values() if len(mine) > 1]
        if not several:
            return None
        inside = sum(torch.pdist(features[mine].double()).mean().item() for mine in several) / len(several)
        return {
            "value": inside / self._apart,
            "ceiling": self._drawn_apart / self._apart,
            "retrieval": 0.0,
            "floor": 0.0,
            "better": "higher",
        }

    def _protocol(self, n: int) -> dict[str, Any]:
        found = super()._protocol(n)
        found.pop("judge_test_accuracy", None)
        found["style"] = found.pop("accuracy").replace("label", "style")
        sizes = ", ".join(f"{len(self._of(p))} {p} ({len(self.captions[p].names)} captions)" for p in self.parts)
        return found | {
            "prompts": f"those of {len(self.labels)} real {self.split} pictures: {sizes}",
            "retrieval": "the training picture of the style asked for whose caption is nearest by idf-weighted word vectors; "
            "measured with each metric in the place of samples",
            "r1": "share of the samples whose own caption is nearest to them of all captions of their sort, by the judge; r5: "
            "among the five nearest. pairs: captions that training has in other styles; captions: those that it has in no "
            "style. Guidance alone raises them: see recall beside them",
            "copies": f"looked for among pixels, averaged to {COPY_SIDE} x {COPY_SIDE}: copy_rate in all styles, copy_style in "
            "the one asked for, copy_caption among pictures of the same caption in other styles; no training picture has both",
            "variety": "mean distance of two samples of a prompt, over that of two training pictures of one style: needs "
            "each=2 or more; ceiling: two real pictures of a caption in two styles",
            "floor": "real pictures with shuffled captions and styles for r1, r5 and style; uniform noise for frechet, kid, "
            "precision and recall; for copying, training pictures",
        }

    # ---------------------------------------------------------------- of real data alone

    def _of(self, part: str) -> list[int]:
        return [i for i, p in enumerate(self.held.parts) if p == part]

    def _shuffled(self, rows: Sequence[int]) -> Tensor:
        """The rows, each in the place of another."""
        order = draw(len(rows), len(rows), self.seed)
        moved = dict(zip(order, order[1:] + order[:1], strict=True))
        return torch.tensor([rows[moved[i]] for i in range(len(rows))])

    @cached_property
    def _shuffled_styles(self) -> float:
        """Style accuracy of real pictures that are taken for others."""
        styles = self.judge.features(self.reference)[1].argmax(1)
        return (styles == self.labels[self._shuffled(range(len(self.labels)))]).double().mean().item()

    @cached_property
    def _keys(self) -> dict[str, tuple[Tensor, Tensor]]:
        """{metric: (key of each held-out picture, key of each training picture)}."""
        number = {c: i for i, c in enumerate(sorted({*self.held.captions, *self.trained.captions}))}
        asked, known = (torch.tensor([number[c] for c in d.captions]) for d in (self.held, self.trained))
        return {"copy_style": (self.held.style, self.trained.style), "copy_caption": (asked, known)}

    @cached_property
    def _reference_places(self) -> Tensor:
        return self.judge.places(self._reference_features)

    @cached_property
    def _real_ranks(self) -> dict[str, Tensor]:
        return {p: self._ranks_of(self._of(p), self._of(p), p) for p in self.parts}

    @cached_property
    def _shuffled_ranks(self) -> dict[str, Tensor]:
        return {p: self._ranks_of(self._of(p), self._shuffled(self._of(p)).tolist(), p) for p in self.parts}

    def _ranks_of(self, pictures: Sequence[int], captions: Sequence[int], part: str) -> Tensor:
        return self.captions[part].ranks(self._reference_places[list(pictures)], [self.held.captions[i] for i in captions])

    @cached_property
    def retrieved(self) -> Tensor:
        """For each held-out picture the training picture of its style with the nearest caption (N,)."""
        names = sorted({*self.held.captions, *self.trained.captions})
        number = {c: i for i, c in enumerate(names)}
        meanings = self.judge.meanings(names)
        asked, known = (torch.tensor([number[c] for c in d.captions]) for d in (self.held, self.trained))
        similar = meanings[asked] @ meanings[known].T
        similar[self.held.style[:, None] != self.trained.style] = -2
        return similar.argmax(1)

    @cached_property
    def _apart(self) -> float:
        """Mean distance of the features of two training pictures of one style."""
        rows = self._draw(len(self.train), 2000)
        features, style = self.judge.features(self.train[rows])[0].double(), self.trained.style[rows]
        distance = torch.cdist(features, features)
        same = (style[:, None] == style) & ~torch.eye(len(rows), dtype=torch.bool)
        return distance[same].mean().item()

    @cached_property
    def _drawn_apart(self) -> float:
        """Mean distance of the features of two held-out pictures of one caption."""
        by: dict[str, list[int]] = defaultdict(list)
        for i, caption in enumerate(self.held.captions):
            by[caption].append(i)
        pairs = [torch.pdist(self._reference_features[mine].double()).mean() for mine in by.values() if len(mine) > 1]
        return torch.stack(pairs).mean().item() if pairs else 0.0


def through_stage(judge: CaptionJudge, held: Captioned) -> Further:
    """What a judge still sees in pictures that went through a first stage, beside the pictures themselves (ceiling).

    Args:
        held: the whole split that is measured, in its order.

    Returns:
        a measurement of `zoo.image.reconstruction`: R@k among all captions of the split of a sort, and style accuracy.
    """

    def measure(made: Reconstructed) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        seen = [judge.features(quantise(fitted(x, judge.shape))) for x in (made.copies, made.originals)]
        for part in PARTS:
            rows = [r for r, p in enumerate(held.parts) if p == part]
            mine = torch.tensor([held.parts[r] == part for r in made.rows])
            if not mine.any():
                continue
            among = Retrieval(judge, [held.captions[r] for r in rows])
            own = [held.captions[r] for r in made.rows if held.parts[r] == part]
            value, ceiling = (among.ranks(judge.places(features[mine]), own) for features, _ in seen)
            for k in TOP:
                hits = int((value < k).sum())
                found[f"r{k}_{part}"] = {
                    "value": hits / len(own),
                    "ceiling": (ceiling < k).double().mean().item(),
                    "floor": min(1.0, k / len(among.names)),
                    "better": "higher",
                    "interval": list(wilson_interval(hits, len(own))),
                }
        styles = held.style[made.rows]
        shares = [(logits.argmax(1) == styles).double().mean().item() for _, logits in seen]
        most = styles.bincount().max().item() / len(styles)
        found["style"] = {"value": shares[0], "ceiling": shares[1], "floor": most, "better": "higher"}
        return found

    return measure
