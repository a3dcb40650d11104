# %% [markdown]
# # Pictures
#
# Samples of a packaged model, the way from noise to a picture, guidance, and a picture that is half known. `STEPS =
# None` takes the model's own number of steps.

# %% tags=["parameters"]
N, STEPS = 8, None

# %%
import numpy as np
from PIL import Image

import zoo

model = zoo.load("image/fashion-ddpm")
pictures = model.sample(N, label="sneaker", seed=0, steps=STEPS)
pictures

# %% [markdown]
# Step by step: what the sampler has, from noise to a picture.

# %%
steps = list(model.sample_iter(1, label="ankle-boot", seed=1, steps=STEPS))
shown = [steps[round(i)].x[0, 0].numpy() for i in np.linspace(0, len(steps) - 1, 8)]
row = np.concatenate([(np.clip(x, -1, 1) + 1) * 127.5 for x in shown], 1).astype(np.uint8)
Image.fromarray(row).resize((8 * 84, 84), Image.Resampling.NEAREST)

# %% [markdown]
# Guidance makes samples more typical of their label, and less varied. The same seed, three weights:

# %%
weights = [0.0, 1.0, 4.0]
rows = [model.sample(4, label="bag", guidance_weight=w, seed=2, steps=STEPS).plot() for w in weights]
sheet = Image.new("RGB", (sum(p.width for p in rows), rows[0].height), "white")
for i, picture in enumerate(rows):
    sheet.paste(picture, (i * picture.width, 0))
sheet

# %% [markdown]
# The left half is known; the right one is drawn, four times.

# %%
where = np.zeros((28, 28), dtype=bool)
where[:, :14] = True
model.inpaint(pictures[0], where, n=4, label="sneaker", seed=3, steps=STEPS)

# %% [markdown]
# From one wish to another, with one noise.

# %%
between = model.interpolate({"label": "coat"}, {"label": "trouser"}, 5, seed=4, steps=STEPS)
between.save("out/between")
between
