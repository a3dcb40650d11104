# %% [markdown]
# # Sound
#
# Spoken digits: several voices, a gap that is filled, a variation. It needs `pip install "diffusion-zoo[audio]"`.

# %% tags=["parameters"]
N, STEPS = 4, None

# %%
import zoo

model = zoo.load("audio/spec-ddpm")
clips = model.sample(N, label="seven", seed=0, steps=STEPS)
clips

# %% [markdown]
# A clip plays itself.

# %%
clips[0]

# %% [markdown]
# One voice, three digits.

# %%
count = model.sample(3, label=["one", "two", "three"], speaker="jackson", seed=1, steps=STEPS)
count.save("out/count")
count

# %% [markdown]
# A gap of 0.15 seconds is filled twice, and the first quarter of a second is continued.

# %%
gap = model.inpaint(clips[0], ~model.codec.frames(0.2, 0.35), n=2, label="seven", seed=2, steps=STEPS)
gap

# %%
longer = model.inpaint(clips[0], model.codec.frames(0.0, 0.25), n=2, label="seven", seed=3, steps=STEPS)
longer[0]

# %% [markdown]
# The same clip in another voice: noise is added, and taken away again.

# %%
near = model.vary(clips[0], strength=0.5, n=2, label="seven", speaker="lucas", seed=4, steps=STEPS)
near[0]
