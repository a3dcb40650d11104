r"""Train the judge of captioned pictures: an image net and a caption net that meet, and the drawing style.

    python benchmarks/train_caption_judge.py --data emoji_styles.npz --words word_vectors.npz --out DIR --minutes 60
    python benchmarks/train_caption_judge.py --data emoji_styles.npz --words word_vectors.npz --out DIR --minutes 2 \
        --device cuda

Real pictures only: "train" for the weights, "validation" for the choice among their running averages, and "test" is read
once, after the choice. A judge that knows its training pictures by heart would say of each of them that it shows its
caption, and would call a generator that repeats them better than real pictures. So training moves, turns, stretches,
recolours, covers and blurs them, all in batches on the device, and the card says how the judge does on training and on
held-out pictures of the same captions.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from zoo.data.archive import read_archive
from zoo.errors import DataError
from zoo.evaluation.judge import WEIGHTS, save_judge
from zoo.evaluation.learn import affordable
from zoo.image.caption_judge import LENGTH, CaptionJudge, fill_words, load_caption_judge, ranks, words_of
from zoo.image.captions import CaptionedImages
from zoo.image.data import open_images
from zoo.image.text_recipes import LICENCE

#: parts of the data
PARTS = ("train", "validation-pairs", "validation-captions", "test-pairs", "test-captions")
#: arguments that the card tells
SETTINGS = ("batch_size", "lr", "weight_decay", "decay", "keywords", "word_noise", "alike", "style", "seed")
#: keywords of a picture that are kept for drawing
KEYWORDS = 32
#: captions in which left and right matter: their pictures are not mirrored
SIDES = {"left", "right", "east", "west", "northeast", "northwest", "southeast", "southwest", "clockwise", "counterclockwise"}


# ---------------------------------------------------------------- data


@dataclass
class Pictures:
    """All pictures of an archive, in memory.

    Attributes:
        pixels: (N, 3, H, W) uint8.
        captions: different captions; caption: the number of each picture's one (N,).
        keywords: of each caption, their words.
        style: numbers (N,); styles: their names.
        rows: {part: rows}, see `PARTS`.
    """

    pixels: Tensor
    captions: list[str]
    caption: Tensor
    keywords: list[list[str]]
    style: Tensor
    styles: tuple[str, ...]
    rows: dict[str, Tensor]


def open_pictures(path: Path) -> Pictures:
    """All parts of an archive of captioned pictures in several styles, in the splits that generators have."""
    parts = {part: open_images(path, part) for part in PARTS}
    for part, found in parts.items():
        if not isinstance(found, CaptionedImages) or "style" not in found.labels:
            raise DataError(f"{path} is not an archive of captioned pictures in several styles, such as emoji_styles.npz.")
        if not len(found):
            raise DataError(f"{path} has no pictures of the part {part!r}.")
    opened = [found for found in parts.values() if isinstance(found, CaptionedImages)]
    captions = sorted({c for d in opened for c in d.captions})
    number = {c: i for i, c in enumerate(captions)}
    keywords: list[list[str]] = [[] for _ in captions]
    for d in opened:
        for caption, further in zip(d.captions, d.keywords, strict=True):
            keywords[number[caption]] = [w for text in further for w in words_of(text)]
    ends = np.cumsum([len(d) for d in opened]).tolist()
    return Pictures(
        torch.stack([torch.from_numpy(d.picture(i)).permute(2, 0, 1) for d in opened for i in range(len(d))]),
        captions,
        torch.tensor([number[c] for d in opened for c in d.captions]),
        keywords,
        torch.from_numpy(np.concatenate([d.targets for d in opened])),
        tuple(opened[0].labels["style"]),
        {part: torch.arange(end - len(d), end) for part, d, end in zip(PARTS, opened, ends, strict=True)},
    )


def known_words(path: Path, pictures: Pictures) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The words of captions and keywords that have a vector: words, vectors (W, D) int8, scales (W,)."""
    found = read_archive(path, ("words", "vectors", "scale"), "word vectors")
    needed = {w for text in pictures.captions for w in words_of(text)} | {w for ws in pictures.keywords for w in ws}
    rows = [i for i, word in enumerate(found["words"]) if str(word) in needed]
    return [str(found["words"][i]) for i in rows], found["vectors"][rows], found["scale"][rows].astype(np.float32)


# ---------------------------------------------------------------- augmentation, in batches on the device


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to training pictures. Numbers are the largest ones, drawn uniformly, or shares of the pictures.

    Attributes:
        smaller, larger: scale of the picture. shift: of its centre, of half a side. turn: degrees. stretch: of one axis.
        hue: degrees. colour: of saturation, brightness and contrast each.
        cover, cover_size: share of pictures of which a rectangle is laid over with white, and its largest side.
        blur, noise, noise_level: shares of pictures that are blurred or get noise, and its largest deviation.
    """

    smaller: float = 0.7
    larger: float = 1.3
    shift: float = 0.2
    turn: float = 20.0
    stretch: float = 0.15
    hue: float = 15.0
    colour: float = 0.3
    cover: float = 0.6
    cover_size: float = 0.5
    blur: float = 0.3
    noise: float = 0.4
    noise_level: float = 0.1

    def __call__(self, pixels: Tensor, mirrored: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> float32 in [-1, 1].

        Args:
            mirrored: (B,) bool, which ones may be mirrored; half of them are.
        """
        b, device = len(pixels), pixels.device

        def uniform(low: float, high: float) -> Tensor:
            return torch.rand(b, device=device) * (high - low) + low

        ink = 1 - pixels.float() / 255  # white is 0, which is what comes in from outside
        ink = self._moved(ink, mirrored, uniform)
        ink = self._covered(ink, uniform)
        x = self._recoloured(1 - ink, uniform)
        soft = nn.functional.avg_pool2d(nn.functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
        x = torch.where((uniform(0, 1) < self.blur)[:, None, None, None], soft, x)
        level = uniform(0, self.noise_level) * (uniform(0, 1) < self.noise)
        x = x + level[:, None, None, None] * torch.randn_like(x)
        return (x.clamp(0, 1) * 2 - 1).contiguous()

    def _moved(self, ink: Tensor, mirrored: Tensor, uniform: Callable[[float, float], Tensor]) -> Tensor:
        angle = uniform(-self.turn, self.turn) * math.pi / 180
        scale = torch.exp(uniform(math.log(self.smaller), math.log(self.larger)))
        stretch = torch.exp(uniform(-self.stretch, self.stretch) / 2)
        flip = torch.where(mirrored & (uniform(0, 1) < 0.5), -1.0, 1.0)
        cos, sin = angle.cos() / scale, angle.sin() / scale
        x = torch.stack([flip * cos * stretch, -flip * sin * stretch, uniform(-self.shift, self.shift)], 1)
        y = torch.stack([sin / stretch, cos / stretch, uniform(-self.shift, self.shift)], 1)
        grid = nn.functional.affine_grid(torch.stack([x, y], 1), list(ink.shape), align_corners=False)
        return nn.functional.grid_sample(ink, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    def _covered(self, ink: Tensor, uniform: Callable[[float, float], Tensor]) -> Tensor:
        side = ink.shape[-1]
        place = torch.arange(side, device=ink.device) / side
        along = []
        for _ in range(2):
            middle, half = uniform(0, 1)[:, None], uniform(0.1, self.cover_size)[:, None] / 2
            along.append((place - middle).abs() < half)
        chosen = (uniform(0, 1) < self.cover)[:, None, None]
        hidden = along[0][:, :, None] & along[1][:, None, :] & chosen
        return ink * ~hidden[:, None]

    def _recoloured(self, x: Tensor, uniform: Callable[[float, float], Tensor]) -> Tensor:
        # hue turns the colours about the grey axis (Rodrigues), saturation moves them towards it
        angle = uniform(-self.hue, self.hue)[:, None, None] * math.pi / 180
        saturation = uniform(1 - self.colour, 1 + self.colour)[:, None, None]
        grey = torch.full((3, 3), 1 / 3, device=x.device)
        root = 1 / math.sqrt(3)
        cross = torch.tensor([[0.0, -root, root], [root, 0.0, -root], [-root, root, 0.0]], device=x.device)
        one = torch.eye(3, device=x.device)
        turned = grey + saturation * (angle.cos() * (one - grey) + angle.sin() * cross)
        x = torch.einsum("bij,bjhw->bihw", turned, x)
        bright, contrast = (uniform(-self.colour, self.colour)[:, None, None, None] for _ in range(2))
        # white stays white: pictures are drawn on it, and it says nothing
        return 1 - (1 - x) * (1 + contrast) * (1 + bright / 2)


# ---------------------------------------------------------------- training


class Average:
    """The running average of a net's weights and statistics: of the last 1 / (1 - decay) steps, and of all at the beginning."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net, self.decay, self.steps = copy.deepcopy(net).eval().requires_grad_(False), decay, 0
        pairs = zip(self.net.state_dict().values(), net.state_dict().values(), strict=True)
        self.own, self.theirs = zip(*[(a, b) for a, b in pairs if a.is_floating_point()], strict=True)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the net as it is now."""
        self.steps += 1
        keep = min(self.decay, self.steps / (self.steps + 10))
        torch._foreach_lerp_(self.own, self.theirs, 1 - keep)


class Trainer:
    """What the steps of a training need, on the device. Call `schedule` first."""

    def __init__(self, judge: CaptionJudge, pictures: Pictures, args: argparse.Namespace) -> None:
        self.device = torch.device(args.device)
        self.judge, self.args = judge.to(self.device), args
        self.augmentation = Augmentation()
        train = pictures.rows["train"]
        self.pixels = pictures.pixels[train].to(self.device)
        self.style = pictures.style[train].to(self.device)
        # captions of the same words are the same thing to the judge
        keys: dict[tuple[str, ...], int] = {}
        number = [keys.setdefault(tuple(words_of(c)), len(keys)) for c in pictures.captions]
        self.thing = torch.tensor(number)[pictures.caption[train]].to(self.device)
        self.caption = pictures.caption[train].to(self.device)
        self.tokens = judge.tokens(pictures.captions).to(self.device)
        self.keywords = torch.full((len(pictures.captions), KEYWORDS), -1)
        for i, ws in enumerate(pictures.keywords):
            rows = list(dict.fromkeys(judge.rows[w] for w in ws if w in judge.rows))[:KEYWORDS]
            self.keywords[i, : len(rows)] = torch.tensor(rows, dtype=torch.long)
        self.keywords = self.keywords.to(self.device)
        sides = torch.tensor([not SIDES & set(words_of(c)) for c in pictures.captions])
        self.mirrored = sides[pictures.caption[train]].to(self.device)
        # rows of each thing, in order, to draw pictures of the same one
        self.order = self.thing.argsort(stable=True)
        self.counts = self.thing.bincount(minlength=len(keys))
        self.starts = self.counts.cumsum(0) - self.counts
        self.there = self.counts.nonzero()[:, 0]
        self.queue = torch.empty(0, dtype=torch.long, device=self.device)

    def rows(self) -> Tensor:
        """Rows (B,) of a batch: half as many things, each in two pictures, which can be the same one."""
        half = self.args.batch_size // 2
        while len(self.queue) < half:
            self.queue = torch.cat([self.queue, self.there[torch.randperm(len(self.there), device=self.device)]])
        things, self.queue = self.queue[:half], self.queue[half:]
        first = torch.rand(half, device=self.device)
        # another one where there is another one
        count = self.counts[things]
        a = (first * count).long()
        b = (a + 1 + (torch.rand(half, device=self.device) * (count - 1).clamp(min=1)).long()) % count
        return self.order[torch.cat([self.starts[things] + a, self.starts[things] + b])]

    def words(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors and weights of the words that are told of pictures: captions, or some of the keywords, with words missing."""
        tokens, keywords = self.tokens[self.caption[rows]], self.keywords[self.caption[rows]]
        noise = torch.rand(keywords.shape, device=self.device).masked_fill(keywords < 0, -1.0)
        few = keywords.gather(1, noise.topk(LENGTH, 1).indices)
        count = torch.randint(1, 6, (len(rows), 1), device=self.device)
        few = few.masked_fill(torch.arange(LENGTH, device=self.device) >= count, -1)
        told = (torch.rand(len(rows), 1, device=self.device) < self.args.keywords) & (few[:, :1] >= 0)
        tokens = torch.where(told, few, tokens)
        vectors, weights = self.judge.word_vectors(tokens)
        missing = torch.rand(weights.shape, device=self.device) < 0.1
        kept = weights * ~missing
        weights = torch.where(kept.sum(1, keepdim=True) > 0, kept, weights)
        size = vectors.norm(dim=-1, keepdim=True) / math.sqrt(vectors.shape[-1])
        return vectors + self.args.word_noise * size * torch.randn_like(vectors), weights

    def loss(self) -> Tensor:
        """Of one batch: pictures and captions find each other, pictures of one thing find each other, and the style."""
        rows = self.rows()
        x = self.augmentation(self.pixels[rows], self.mirrored[rows])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            features = self.judge.embed(x)
        features = features.float()
        pictures, captions = self.judge.place(features), self.judge.place_words(*self.words(rows))
        style = self.judge.classifier(nn.functional.dropout(features, self.judge.dropout))
        thing = self.thing[rows]
        same = (thing[:, None] == thing).float()
        scale = self.judge.log_scale.exp().clamp(max=60)
        target = same / same.sum(1, keepdim=True)
        logits = scale * pictures @ captions.T
        cross = nn.functional.cross_entropy
        meet = (cross(logits, target) + cross(logits.T, target)) / 2
        own = scale * pictures @ pictures.T
        own = own.masked_fill(torch.eye(len(rows), dtype=torch.bool, device=self.device), -1e4)
        other = same * ~torch.eye(len(rows), dtype=torch.bool, device=self.device)
        alike = cross(own, other / other.sum(1, keepdim=True).clamp(min=1))
        return meet + self.args.alike * alike + self.args.style * cross(style, self.style[rows])

    def schedule(self, steps: int) -> None:
        """The optimizer for so many steps."""
        own = list(self.judge.parameters())
        decayed, plain = [p for p in own if p.ndim > 1], [p for p in own if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": self.args.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, self.args.lr, betas=(0.9, 0.98), fused=self.device.type == "cuda")
        self.cycle = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, self.args.lr, total_steps=steps, pct_start=0.1, final_div_factor=50, cycle_momentum=False
        )

    def step(self) -> Tensor:
        """One step; its loss, on the device."""
        loss = self.loss()
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.judge.parameters(), 5.0)
        self.optimizer.step()
        self.cycle.step()
        return loss.detach()

    def timed(self) -> None:
        """One step that is waited for."""
        self.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def measure(judge: CaptionJudge, pictures: Pictures, rows: Tensor, device: torch.device) -> dict[str, float]:
    """R@1, R@5, mean reciprocal rank and style accuracy of pictures, among their own captions."""
    places, right = [], 0
    for part in rows.split(512):
        x = pictures.pixels[part].to(device).float() / 127.5 - 1
        with torch.no_grad():
            features = judge.embed(x)
            places.append(judge.place(features))
            right += int((judge.classifier(features).argmax(1).cpu() == pictures.style[part]).sum())
    numbers, own = pictures.caption[rows].unique(return_inverse=True)
    captions = judge.captions([pictures.captions[int(i)] for i in numbers])
    found = ranks(torch.cat(places).cpu(), captions, own)
    return {
        "n": len(rows),
        "captions": len(numbers),
        "r1": (found < 1).double().mean().item(),
        "r5": (found < 5).double().mean().item(),
        "mrr": (1 / (1 + found.double())).mean().item(),
        "style": right / len(rows),
        "chance": 1 / len(numbers),
    }


def train(judge: CaptionJudge, pictures: Pictures, args: argparse.Namespace, *, log: bool = True) -> dict[str, Any]:
    """Train a judge, which ends with the average that is best on the validation parts; what the card says of it."""
    start = time.perf_counter()
    trainer = Trainer(judge, pictures, args)
    judge.train()
    steps = args.steps
    if steps is None:
        before = copy.deepcopy(judge.state_dict())
        trainer.schedule(1000)
        steps = affordable(trainer.timed, 0.93 * 60 * args.minutes - (time.perf_counter() - start), tries=8)
        judge.load_state_dict(before)
    trainer.schedule(steps)
    torch.manual_seed(args.seed)
    average = Average(judge, args.decay)
    every = max(1, steps // args.looks)
    best, chosen, kept = -1.0, 0, {}
    curve: list[dict[str, Any]] = []
    losses = torch.zeros((), device=trainer.device)
    began = time.perf_counter()
    for step in tqdm(range(1, steps + 1), "judge", disable=not log):
        losses += trainer.step()
        average.update()
        if step % every and step != steps:
            continue
        found = {part: measure(average.net, pictures, pictures.rows[part], trainer.device) for part in PARTS[1:3]}
        value = sum(f["mrr"] for f in found.values()) / 2
        entry = {"step": step, "loss": losses.item() / every, "scale": judge.log_scale.exp().item(), "mrr": value}
        losses.zero_()
        curve.append(entry | {f"{part}_{k}": f[k] for part, f in found.items() for k in ("r1", "r5", "style")})
        if log:
            tqdm.write(" ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in curve[-1].items()))
        if value > best:
            best, chosen, kept = value, step, copy.deepcopy(average.net.state_dict())
    seconds = time.perf_counter() - began
    judge.load_state_dict(kept)
    judge.eval()
    return {
        "settings": {k: getattr(args, k) for k in SETTINGS} | {"steps": steps, "augmentation": vars(trainer.augmentation)},
        "chosen": f"the running average at step {chosen}, of {len(curve)}: highest mean reciprocal rank of validation",
        "steps_per_second": round(steps / seconds, 2),
        "pictures_per_second": round(steps * args.batch_size / seconds),
        "curve": curve,
    }  # fmt: skip


def memory(judge: CaptionJudge, pictures: Pictures, device: torch.device) -> dict[str, float]:
    """How the judge does on training pictures of the captions of the validation pairs, as many and among the same captions.

    Far above the held-out ones: it knows its training pictures by heart.
    """
    rng = np.random.default_rng(0)
    train = pictures.rows["train"].numpy()
    by: dict[int, list[int]] = {}
    for i in train:
        by.setdefault(int(pictures.caption[i]), []).append(int(i))
    held = [int(pictures.caption[i]) for i in pictures.rows["validation-pairs"]]
    rows = [int(rng.choice(by[c])) for c in held if c in by]
    return measure(judge, pictures, torch.tensor(rows), device)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", required=True, type=Path, metavar="FILE", help="emoji_styles.npz")
    p.add_argument("--words", type=Path, metavar="FILE", help="word_vectors.npz (default: ../text/ beside the data's folder)")
    p.add_argument("--out", required=True, type=Path, metavar="DIR")
    p.add_argument("--minutes", type=float, default=60.0, help="default %(default)s")
    p.add_argument("--steps", type=int, help="so many in place of what the minutes allow: the same judge again")
    p.add_argument("--device", default="cpu", help="cpu or cuda (default %(default)s)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--batch-size", type=int, help="default 1024 on cuda, else 192")
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--weight-decay", type=float, default=0.1)
    p.add_argument("--decay", type=float, help="of the running average (default: over 3 %% of the steps)")
    p.add_argument("--widths", type=int, nargs=3, default=(32, 72, 144), metavar="N")
    p.add_argument("--dropout", type=float, default=0.2)
    p.add_argument("--keywords", type=float, default=0.3, help="share of pictures that are told by keywords")
    p.add_argument("--word-noise", type=float, default=0.3, help="deviation of the noise on word vectors, of their own size")
    p.add_argument("--alike", type=float, default=0.3, help="weight of pictures finding others of their thing")
    p.add_argument("--style", type=float, default=1.0, help="weight of the style")
    p.add_argument("--looks", type=int, default=20, help="how often validation is looked at")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Train, measure and save. See the module's docstring."""
    args = parser().parse_args(argv)
    args.words = args.words or args.data.parent.parent / "text" / "word_vectors.npz"
    for path in (args.data, args.words):
        if not path.is_file():
            raise DataError(f"no file {path}; give --data emoji_styles.npz and --words word_vectors.npz")
    args.batch_size = args.batch_size or (1024 if args.device == "cuda" else 192)
    start = time.perf_counter()
    torch.manual_seed(args.seed)
    torch.backends.cudnn.benchmark = True
    pictures = open_pictures(args.data)
    words, vectors, scales = known_words(args.words, pictures)
    judge = CaptionJudge(
        tuple(args.widths),
        pictures.styles,
        args.dropout,
        words=words,
        shape=tuple(pictures.pixels.shape[1:]),
        vector=vectors.shape[1],
    )
    train_captions = pictures.caption[pictures.rows["train"]].unique()
    fill_words(judge, vectors, scales, [pictures.captions[int(i)] for i in train_captions])
    if args.decay is None:
        args.decay = 0.99
    report = train(judge, pictures, args)
    minutes = (time.perf_counter() - start) / 60
    save_judge(judge, args.out, {}, half=True)
    judge = load_caption_judge(args.out, args.device)  # what was written is measured
    device = torch.device(args.device)
    measured = {part: measure(judge, pictures, pictures.rows[part], device) for part in PARTS[1:]}
    measured["train pictures of validation-pairs"] = memory(judge, pictures, device)
    card = {
        "data": {
            "name": args.data.name,
            "sha256": hashlib.sha256(args.data.read_bytes()).hexdigest(),
            "words": args.words.name,
            "rows": {part: len(r) for part, r in pictures.rows.items()},
        },
        "licence": LICENCE,
        "retrieval": measured,
        "accuracy": {"test": {"value": measured["test-pairs"]["style"]}},
        "training": report | {
            "minutes": round(minutes, 2),
            "device": torch.cuda.get_device_name() if args.device == "cuda" else f"{torch.get_num_threads()} threads",
            "cores": os.cpu_count(),
        },
        "parameters": sum(p.numel() for p in judge.parameters()),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }  # fmt: skip
    save_judge(judge, args.out, card, half=True)
    for part, found in measured.items():
        print(
            f"{part:40} R@1 {found['r1']:.3f}  R@5 {found['r5']:.3f}  style {found['style']:.3f}  "
            f"chance {found['chance']:.4f}  {found['n']} pictures of {found['captions']} captions"
        )
    size = (args.out / WEIGHTS).stat().st_size / 1e6
    print(f"{card['parameters']:,} parameters, {size:.2f} MB, {minutes:.1f} minutes, {report['steps_per_second']} steps/s")


if __name__ == "__main__":
    main()
