import numpy as np
import pytest
import torch

import zoo
from zoo.core import seeds
from zoo.policy.data import PUSHT, Episodes

SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16, "net.kernel": 3}


@pytest.fixture(scope="module")
def policy():
    """A small net on made-up episodes of Push-T, with weights of all sizes."""
    rng = np.random.default_rng(0)
    data = Episodes(rng.uniform(50, 450, (60, 18)), rng.uniform(50, 450, (60, 2)), np.array([30, 60]), PUSHT)
    model = zoo.create("policy/pusht-keypoints", **SMALL)
    model.codec.fit(data)
    with torch.no_grad():
        for i, p in enumerate(model.denoiser.parameters()):
            p += 0.05 * torch.randn(p.shape, generator=seeds.generator(i))
    return model
