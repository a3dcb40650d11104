# %% [markdown]
# # Robots
#
# A policy pushes a T over a table until it covers its goal. It needs `pip install "diffusion-zoo[policy]"`.

# %% tags=["parameters"]
MOST = 300  # steps of an episode

# %%
import gym_pusht  # noqa: F401  # registers the environment
import gymnasium
import numpy as np
from IPython.display import Image

import zoo
from zoo.figure import save_film

policy = zoo.load("policy/pusht-keypoints")
env = gymnasium.make("gym_pusht/PushT-v0", obs_type="environment_state_agent_pos", render_mode="rgb_array")
seen, _ = env.reset(seed=3)

# %% [markdown]
# Eight plans for what the robot sees now.

# %%
now = np.concatenate([seen["environment_state"], seen["agent_pos"]])
plans = policy.sample(8, observation=now, seed=0)
plans

# %% [markdown]
# In the loop: a controller plans sixteen actions, carries out eight of them, and plans again. With `join` each plan
# goes on with the last one.

# %%
controller = policy.controller(seed=0, join=True)
frames, rewards = [], []
for _ in range(MOST):
    seen, reward, done, stopped, _ = env.step(controller.act(seen))
    frames.append(env.render())
    rewards.append(reward)
    if done or stopped:
        break
max(rewards), controller.latency()

# %% [markdown]
# How it went.

# %%
Image(filename=str(save_film(frames, "episode.gif", rate=10, extra="policy")))
