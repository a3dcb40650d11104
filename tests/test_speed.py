"""Bars of speed that hold on any machine, since they compare two times of the same run."""

import pytest
import samplers as benchmark

import zoo


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp", "heun", "euler"])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_sampler_s_own_work_is_small(sampler, weight):
    """Everything but the network call: below 3 % of the network's time at n = 16."""
    model = zoo.create("image/fashion-ddpm")
    _, share, calls = benchmark.overhead(
        model, 16, sampler=sampler, steps=25, guidance_weight=weight, label=[i % 10 for i in range(16)]
    )
    assert calls == (49 if sampler == "heun" else 25)
    assert share < 0.03
