# %% [markdown]
# # Bring your own data
#
# A folder of pictures, with a subfolder for each class, becomes a model. Give yours as `DATA`; without one, bags and
# sneakers that the packaged model drew stand in for it. Sounds, shapes, episodes and structures work the same:
# `zoo.train("audio/spec-ddpm", ...)`.

# %% tags=["parameters"]
DATA = None  # "photos/"
MINUTES, EACH = 10, 64  # minutes of the whole run; made-up pictures of a class
SMALL = {}  # changes of the recipe, such as {"codec.size": 64}

# %%
import zoo

if DATA is None:
    DATA = "out/made-up"
    packaged = zoo.load("image/fashion-ddpm")
    for label in ("bag", "sneaker"):
        packaged.sample(EACH, label=label, seed=0, steps=6).save(f"{DATA}/{label}")

# %% [markdown]
# What is there, and what a net will see (on the command line: `zoo data out/made-up`).

# %%
from zoo.contract.registry import get_domain

data = get_domain("image").dataset(DATA, "train")
len(data), data.labels

# %% [markdown]
# From scratch, or from the weights of the packaged model, which is quicker where the data are alike:
# `init="image/fashion-ddpm"`.

# %%
name = "image/fashion-ddpm"
model = zoo.train(name, data=DATA, out="runs/mine", minutes=MINUTES, init=name, overrides=SMALL)

# %%
samples = model.sample(8, label=data.labels["label"][0], seed=0)
samples.save("out/mine")
samples

# %% [markdown]
# The folder is a model like any other.

# %%
again = zoo.load("./runs/mine")
again.verify("runs/mine"), again.recipe.classes("label")
