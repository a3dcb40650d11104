# %% [markdown]
# # Your own net
#
# Any module with this forward becomes a model. Give a folder of pictures as `PICTURES`, with a subfolder for each
# class; without one, pictures that a packaged model drew stand in for it.

# %% tags=["parameters"]
PICTURES, STEPS = None, 2000

# %%
import torch
from torch import nn

import zoo
from zoo.core.diffusion import Diffusion
from zoo.core.schedule import FlowSchedule
from zoo.image.codec import ImageCodec
from zoo.image.data import open_images

# %% [markdown]
# Convolutions at two sizes, told the time and the label: -1 where a sample has none.


# %%
class MyNet(nn.Module):
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
        label = torch.where(cond["label"] < 0, self.label.num_embeddings - 1, cond["label"])
        told = self.time(t[:, None]) + self.label(label)
        h = torch.relu(self.entry(x_t) + told[:, :, None, None])
        inner = torch.relu(self.down(h))
        inner = inner + torch.relu(self.middle(inner))
        return self.exit(torch.cat([h, torch.relu(self.up(inner))], 1))


# %%
if PICTURES is None:
    PICTURES = "out/made-up"
    for label in ("bag", "sneaker"):
        zoo.load("image/fashion-ddpm").sample(64, label=label, seed=0, steps=6).save(f"{PICTURES}/{label}")
data = open_images(PICTURES)
classes = len(data.labels["label"])

# %%
diffusion = Diffusion(FlowSchedule(), prediction="flow")
model = zoo.Model.of(diffusion, MyNet(classes), ImageCodec(size=28), conditions=data.conditions(), name="my-net")
zoo.fit(model, data, steps=STEPS, out="runs/my-net")

# %%
samples = model.sample(8, sampler="heun", steps=20, guidance_weight=1.0, label=[i % classes for i in range(8)], seed=0)
samples.save("out/my-net")
samples

# %% [markdown]
# A folder never names code: give the net to load it again.

# %%
again = zoo.load("runs/my-net", net=MyNet(classes))
again, again.verify()
