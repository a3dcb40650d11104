"""Train a net of your own on a folder of pictures: python examples/own_net.py PICTURES [STEPS]"""

import sys
from pathlib import Path

import torch
from torch import nn

import zoo
from zoo.core.diffusion import Diffusion
from zoo.core.schedule import FlowSchedule
from zoo.image.codec import ImageCodec
from zoo.image.data import open_images


class MyNet(nn.Module):
    """Convolutions at two sizes, told the time and the label. Any module with this forward will do."""

    def __init__(self, classes: int, width: int = 32) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width)  # the last row stands for "no label"
        self.entry = nn.Conv2d(1, width, 3, padding=1)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.middle = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.up = nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1)
        self.exit = nn.Conv2d(2 * width, 1, 3, padding=1)

    def forward(self, x_t, t, cond, *, mask=None):
        label = cond["label"]  # -1 where a sample has none
        told = self.time(t[:, None]) + self.label(torch.where(label < 0, self.label.num_embeddings - 1, label))
        h = torch.relu(self.entry(x_t) + told[:, :, None, None])
        inner = torch.relu(self.down(h))
        inner = inner + torch.relu(self.middle(inner))
        return self.exit(torch.cat([h, torch.relu(self.up(inner))], 1))


def main(pictures: Path, out: Path, steps: int = 2000) -> None:
    """Train, sample, save, and load the model again."""
    data = open_images(pictures)
    classes = len(data.labels["label"])
    diffusion = Diffusion(FlowSchedule(), prediction="flow")
    model = zoo.Model.of(diffusion, MyNet(classes), ImageCodec(size=28), conditions=data.conditions(), name="my-net")
    zoo.fit(model, data, steps=steps, out=out / "run")
    model.sample(8, sampler="heun", steps=20, guidance_weight=1.0, label=[i % classes for i in range(8)]).save(out / "samples")
    again = zoo.load(out / "run", net=MyNet(classes))  # a folder never names code: give the net
    print(again, "verified within", again.verify())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path("runs/my-net"), *map(int, sys.argv[2:3]))
