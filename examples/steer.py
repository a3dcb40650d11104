# %% [markdown]
# # Steer
#
# A steer takes the prediction that the sampler sees and returns another one. It works in every domain, alone or with
# others.

# %% tags=["parameters"]
N, STEPS = 4, None

# %%
import torch

import zoo
from zoo.core.steer import gradient, noise_of

model = zoo.load("image/fashion-ddpm")
plain = model.sample(N, label="shirt", seed=0, steps=STEPS)
plain

# %% [markdown]
# What must be so: left and right alike. No gradient is needed.


# %%
def mirrored(predict):
    def steered(x, level):
        x0 = predict(x, level)[0]
        x0 = (x0 + x0.flip(-1)) / 2
        return x0, noise_of(x, x0, level)

    return steered


model.sample(N, label="shirt", seed=0, steps=STEPS, steer=[mirrored])

# %% [markdown]
# What is liked: an energy that is small where pictures are bright, and its slope through the net.


# %%
def bright(target, weight):
    def steer(predict):
        def steered(x, level):
            x0, _, slope = gradient(predict, x, level, lambda x0: (x0.flatten(1).mean(1) - target).square())
            x0 = x0 - weight * x0[0].numel() * slope
            return x0, noise_of(x, x0, level)

        return steered

    return steer


brighter = model.sample(N, label="shirt", seed=0, steps=STEPS, steer=[bright(0.2, 1.0)])
brighter

# %% [markdown]
# What is known: the upper half of the first one, by `inpaint`, and by `hold` beside another steer.

# %%
where = torch.zeros(28, 28, dtype=torch.bool)
where[:14] = True
model.inpaint(plain[0], where, n=N, label="dress", seed=1, steps=STEPS)

# %%
held = zoo.steer.hold(model.encoded(plain[0]), where)
model.sample(N, label="dress", seed=1, steps=STEPS, steer=[mirrored, held])
