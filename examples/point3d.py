# %% [markdown]
# # Shapes
#
# Point clouds that turn, half a chair that becomes a whole one, a mesh. It needs `pip install
# "diffusion-zoo[point3d]"`.

# %% tags=["parameters"]
POINTS, STEPS = 2048, None

# %%
import zoo
from zoo.point3d.cloud import PointCloud

model = zoo.load("point3d/shapes-ddpm")
clouds = model.sample(2, label=["chair", "lamp"], n_points=POINTS, seed=0, steps=STEPS)
clouds

# %% [markdown]
# One of them, to be turned with the mouse.

# %%
clouds[0]

# %% [markdown]
# Only the lower half is known, as of a partial scan.

# %%
chair = clouds[0]
height = chair.points[:, 1]
low = PointCloud(chair.points[height < height.mean()])
whole = model.inpaint(low, n=2, n_points=POINTS, label="chair", seed=1, steps=STEPS)
whole

# %% [markdown]
# Files: a cloud of points, a film, and a closed surface around the points.

# %%
whole.save("out/chairs")
chair.spin("out/chair.gif", frames=24)
chair.to_mesh().export("out/chair.stl")

# %% [markdown]
# The same shape, a little different.

# %%
model.vary(chair, strength=0.4, n=2, label="chair", seed=2, steps=STEPS)
