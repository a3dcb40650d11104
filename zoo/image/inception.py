"""Inception-v3 FID, where its weights are on the machine. Nothing is fetched."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from zoo.evaluation.distances import frechet_distance
from zoo.image.judge import fitted

#: what torch-fidelity calls its weights, converted from TensorFlow's of 2015, and where they are
FILE = "weights-inception-2015-12-05-6726825d.pth"
HOME = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
#: fewer pictures than these make a covariance of 2048 features that has no inverse, and the published ones have 50,000
USUAL = 50_000


def weights() -> Path:
    """Where the weights belong: among those of torch's hub."""
    return Path(torch.hub.get_dir()) / "checkpoints" / FILE


def missing() -> str:
    """What must be done first, in one line; "" where all is there."""
    if find_spec("torch_fidelity") is None:
        return (
            f"not measured: it needs torch-fidelity (pip install torch-fidelity) and its weights: fetch {HOME} to {weights()}"
        )
    return "" if weights().is_file() else f"not measured: fetch its weights from {HOME} to {weights()}"


def net() -> Any:
    """The net: uint8 pictures (n, 3, H, W) -> features (n, 2048)."""
    from torchmetrics.image.fid import NoTrainInceptionV3

    return NoTrainInceptionV3("inception-v3-compat", ["2048"], str(weights()))


@torch.no_grad()
def features(x: Tensor, inception: Any, chunk: int = 50) -> Tensor:
    """Inception's features (n, 2048) of pictures (n, C, H, W) in [-1, 1]; it resizes them to 299 x 299 itself."""
    colour = ((fitted(x, (3, *x.shape[2:])) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    bar = tqdm(colour.split(chunk), "Inception-v3", delay=2, leave=False)
    return torch.cat([inception(part) for part in bar]).float()


def fid(samples: Tensor, reference: Tensor, real: Tensor, noise: Tensor) -> tuple[dict[str, Any] | None, str]:
    """(The metric with ceiling and floor, or None; its line of the protocol).

    Args:
        samples, reference: pictures (n, C, H, W) in [-1, 1]. real, noise: what ceiling and floor are measured of.
    """
    if told := missing():
        return None, told
    inception = net()
    target = features(reference, inception)
    value, ceiling, floor = (frechet_distance(features(x, inception), target) for x in (samples, real, noise))
    about = (
        f"Inception-v3 of 2015 (torch-fidelity's), pool features of 2048, pictures resized from {tuple(samples.shape[2:])} to "
        f"299 x 299 by its own bilinear; {len(samples)} samples, {len(reference)} reference pictures. Published ones have "
        f"{USUAL:,}: fewer give larger values"
    )
    return {"value": value, "ceiling": ceiling, "floor": floor, "better": "lower"}, about
