"""The judge of pictures and their captions: two nets that put a picture and the words for it at the same place.

A contrastive pair (CLIP, Radford et al. 2021, arXiv:2103.00020) of a small convolutional net and a small transformer over
frozen word vectors. Whether a picture shows its caption is measured by retrieval: how often its own caption is the nearest
one (R@1) or among the five nearest (R@5). The styles of the pictures are its classes, see `zoo.evaluation.judge`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.errors import ConfigError, DataError, ShapeError
from zoo.evaluation import judge as judges

#: the judge of the emoji that comes with zoo
PACKAGED = Path(__file__).parent.parent / "checkpoints" / "image" / "emoji-judge"
#: words of a caption that count; the longest one of the emoji has eight
LENGTH = 12
#: a caption whose similarity is larger by no more than this is not nearer: two with the same words differ by rounding
SAME = 1e-5


DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def words_of(text: str) -> list[str]:
    """The words of a caption: runs of the letters a to z, digits by their names; case, accents, punctuation do not count."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return [DIGITS[int(w)] if w.isdigit() else w for w in re.findall("[a-z]+|[0-9]", plain.casefold())]


class _Block(nn.Module):
    """A residual block of two 3 x 3 convolutions (B, C, H, W) -> (B, C2, H / stride, W / stride)."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(c_out)
        self.second = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(c_out)
        nn.init.zeros_(self.norm2.weight)  # a new block passes its input on
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.skip = nn.Conv2d(c_in, c_out, 1, bias=False) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm2(self.second(self.norm1(self.first(x)).relu()))
        out: Tensor = (h + self.skip(self.pool(x))).relu()
        return out


class _Captions(nn.Module):
    """Word vectors (B, L, D) with weights (B, L), 0 where there is no word -> (B, dim).

    One transformer layer reads the words in their order; beside it goes the weighted mean of the vectors as they are.
    """

    def __init__(self, vector: int, width: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Linear(vector, width)
        self.position = nn.Parameter(0.02 * torch.randn(LENGTH, width))
        self.layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.mean = nn.Linear(vector, width)
        self.leave = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, dim)
        )

    def forward(self, vectors: Tensor, weights: Tensor) -> Tensor:
        weights = weights / weights.sum(1, keepdim=True)
        h = self.enter(vectors) + self.position[: vectors.shape[1]]
        h = self.layer(h, src_key_padding_mask=weights == 0)
        pooled = (weights[..., None] * h).sum(1) + self.mean((weights[..., None] * vectors).sum(1))
        out: Tensor = self.leave(pooled)
        return out


class CaptionJudge(judges.Judge):
    """Pictures (B, C, H, W) in [-1, 1] and captions, at unit vectors (B, dim); its classes are the pictures' styles.

    Args:
        widths: channels of the stages at a half, a quarter and an eighth of the picture's size. The means of the last two are
            the features; the last one alone says what is shown.
        class_names: names of the styles.
        dropout: on the features and in the caption net, in training only.
        shape: of one picture.
        words: those that it knows.
        dim: of the space in which pictures and captions meet.
        vector: numbers of a word vector.
        caption_width: of the caption net.

    Attributes:
        log_scale: logarithm of the inverse temperature, learnt.

    Raises:
        ConfigError: not three widths, fewer than two styles, a dropout outside [0, 1), no words, or a shape without three axes.
    """

    vectors: Tensor
    scales: Tensor
    weights: Tensor

    def __init__(
        self,
        widths: tuple[int, ...],
        class_names: tuple[str, ...],
        dropout: float = 0.2,
        shape: tuple[int, ...] = (3, 64, 64),
        words: Sequence[str] = (),
        dim: int = 128,
        vector: int = 96,
        caption_width: int = 128,
    ) -> None:
        super().__init__(widths, class_names, dropout)
        if len(shape) != 3 or min(shape) < 1 or shape[1] < 16 or shape[2] < 16:
            raise ConfigError(f"a judge of captions takes pictures (C, H, W) from 16 x 16 on, got {tuple(shape)}")
        if not words or len(set(words)) < len(words):
            raise ConfigError(f"a judge of captions needs words, each of them once; got {len(words)}")
        self.shape, self.words = tuple(shape), tuple(words)
        self.dim, self.vector, self.caption_width = dim, vector, caption_width
        self.rows = {word: i for i, word in enumerate(self.words)}
        a, b, c = widths
        self.fine = nn.Sequential(
            nn.Conv2d(shape[0], a, 3, 2, 1, bias=False),
            nn.BatchNorm2d(a),
            nn.ReLU(),
            _Block(a, a),
            _Block(a, b, 2),
            _Block(b, b),
        )
        self.coarse = nn.Sequential(_Block(b, c, 2), _Block(c, c, 2))
        # means over a picture vary by a tenth; heads learn from what varies by one
        self.norm = nn.BatchNorm1d(self.width)
        self.classifier = nn.Linear(self.width, len(class_names))
        self.project = nn.Linear(c, dim)
        self.captions_net = _Captions(vector, caption_width, dim, dropout)
        self.log_scale = nn.Parameter(torch.tensor(2.5))
        self.register_buffer("vectors", torch.zeros(len(self.words), vector, dtype=torch.int8))
        self.register_buffer("scales", torch.zeros(len(self.words)))
        self.register_buffer("weights", torch.ones(len(self.words)))
        self.to(memory_format=torch.channels_last)

    @property
    def config(self) -> dict[str, Any]:
        own = {"dim": self.dim, "vector": self.vector, "caption_width": self.caption_width}
        return super().config | {"shape": list(self.shape), "words": list(self.words)} | own

    def check(self, x: Tensor) -> None:
        if x.ndim != 4 or tuple(x.shape[1:]) != self.shape:
            want = ", ".join(map(str, self.shape))
            raise ShapeError(f"the judge takes pictures (N, {want}), got {tuple(x.shape)}; resize them first")
        if not x.is_floating_point():
            raise DataError(f"the judge takes floating-point pictures in [-1, 1], got {x.dtype}; use x / 127.5 - 1")

    @property
    def width(self) -> int:
        return self.widths[1] + self.widths[2]

    def embed(self, x: Tensor) -> Tensor:
        self.check(x)
        fine = self.fine(x.contiguous(memory_format=torch.channels_last))
        # how a thing is drawn shows in the fine features, which the search for what it is would lose
        found: Tensor = self.norm(torch.cat([fine.mean((2, 3)), self.coarse(fine).mean((2, 3))], 1))
        return found

    # ---------------------------------------------------------------- where pictures and captions meet

    def place(self, features: Tensor) -> Tensor:
        """Unit vectors (B, dim) of the features (B, width) of pictures."""
        features = features[:, self.widths[1] :]
        features = nn.functional.dropout(features, self.dropout, self.training)
        return nn.functional.normalize(self.project(features).float(), dim=1)

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """The words of captions as row numbers (n, LENGTH) int64, -1 where there is none. Unknown words are left out.

        Raises:
            DataError: a caption without any known word, which has no place.
        """
        found = torch.full((len(captions), LENGTH), -1)
        for i, caption in enumerate(captions):
            rows = [self.rows[w] for w in words_of(caption) if w in self.rows][:LENGTH]
            if not rows:
                raise DataError(
                    f"the judge knows no word of the caption {caption!r}: it knows {len(self.words)} English words."
                )
            found[i, : len(rows)] = torch.tensor(rows)
        return found

    def word_vectors(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Frozen vectors (n, L, vector) of `tokens` (n, L), and how much each word counts (n, L): its idf, 0 for none."""
        known = tokens.clamp(min=0)
        vectors = self.vectors[known].float() * (self.scales[known].float() / 127)[..., None]
        return vectors, self.weights[known].float() * (tokens >= 0)

    def place_tokens(self, tokens: Tensor) -> Tensor:
        """Unit vectors (n, dim) of captions as `tokens` (n, LENGTH)."""
        return self.place_words(*self.word_vectors(tokens))

    def place_words(self, vectors: Tensor, weights: Tensor) -> Tensor:
        """Unit vectors (n, dim) of captions as `word_vectors`."""
        return nn.functional.normalize(self.captions_net(vectors, weights).float(), dim=1)

    @torch.no_grad()
    def captions(self, captions: Sequence[str]) -> Tensor:
        """Unit vectors (n, dim) of captions, on the CPU. Errors as in `tokens`."""
        device, was_training = next(self.parameters()).device, self.training
        self.eval()
        try:
            return torch.cat([self.place_tokens(part.to(device)).cpu() for part in self.tokens(captions).split(500)])
        finally:
            self.train(was_training)

    @torch.no_grad()
    def places(self, features: Tensor) -> Tensor:
        """`place` of features (N, width) of any number of pictures in evaluation mode, on the CPU."""
        was_training = self.training
        self.eval()
        try:
            return self.place(features.to(next(self.parameters()).device)).cpu()
        finally:
            self.train(was_training)

    def meanings(self, captions: Sequence[str]) -> Tensor:
        """Unit vectors (n, vector) of captions without anything that was learnt from pictures: idf-weighted word vectors."""
        vectors, weights = self.word_vectors(self.tokens(captions).to(self.vectors.device))
        return nn.functional.normalize((weights[..., None] * vectors).sum(1), dim=1).cpu()


def fill_words(judge: CaptionJudge, vectors: NDArray[np.int8], scales: NDArray[np.float32], captions: Sequence[str]) -> None:
    """Give a judge the vectors of its words, and their weights: log((1 + captions) / (1 + captions with the word)).

    Args:
        vectors, scales: (W, vector) int8 and (W,) of its words, in their order: word i is vectors[i] * scales[i] / 127.
        captions: different ones, by which words are common or rare.
    """
    counts = dict.fromkeys(judge.words, 0)
    for caption in captions:
        for word in set(words_of(caption)) & counts.keys():
            counts[word] += 1
    idf = [np.log((1 + len(captions)) / (1 + n)) for n in counts.values()]
    judge.vectors.copy_(torch.from_numpy(np.ascontiguousarray(vectors)))
    judge.scales.copy_(torch.from_numpy(np.ascontiguousarray(scales)))
    judge.weights.copy_(torch.tensor(idf).clamp(min=0.1))


def ranks(pictures: Tensor, captions: Tensor, own: Tensor) -> Tensor:
    """How many captions are nearer to each picture than its own one (n,) int64; 0 is a hit of R@1, below 5 one of R@5.

    Captions that differ by rounding alone, such as those of the same words, are not nearer than each other.

    Args:
        pictures, captions: unit vectors (n, dim) and (m, dim).
        own: number of each picture's caption (n,).
    """
    similar = pictures.double() @ captions.double().T
    mine = similar.gather(1, own[:, None])
    return (similar > mine + SAME).sum(1)


def load_caption_judge(folder: str | Path = PACKAGED, device: str | torch.device | None = None) -> CaptionJudge:
    """The packaged judge of the emoji, or one that `zoo.evaluation.judge.save_judge` wrote into `folder`; errors as there."""
    return judges.load_judge(CaptionJudge, folder, device)
