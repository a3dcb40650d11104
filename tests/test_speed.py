"""Bars of speed that hold on any machine, since they compare two times of the same run."""

import importlib.util
import json
import sys

import peers
import pytest
import samplers as benchmark
import torch

import zoo


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp", "plms", "heun", "euler"])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_sampler_s_own_work_is_small(sampler, weight):
    """Everything but the network call: below 3 % of the network's time at n = 16."""
    model = zoo.create("image/fashion-ddpm")
    _, share, calls = benchmark.overhead(
        model, 16, sampler=sampler, steps=25, guidance_weight=weight, label=[i % 10 for i in range(16)]
    )
    assert calls == {"heun": 49, "plms": 26}.get(sampler, 25)
    assert share < 0.03


@pytest.mark.slow
def test_the_race_with_peers_runs(tmp_path):
    """With tiny budgets: what it tells, not how fast anybody is."""
    for package in ("diffusers", "denoising_diffusion_pytorch"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    modules = set(sys.modules)
    threads = torch.get_num_threads()
    found = peers.main(["--quick", "--threads", "1", "--json", str(tmp_path / "peers.json")])
    torch.set_num_threads(threads)
    assert not {m for m in set(sys.modules) - modules if isinstance(sys.modules[m], peers.StandIn)}
    assert json.loads((tmp_path / "peers.json").read_text()) == json.loads(json.dumps(found))
    (fp32,) = found["found"]
    assert [(r["net"], r["task"]) for r in fp32["rows"]] == [(n, t) for n in peers.NETS for t in peers.TASKS]
    for row in fp32["rows"]:
        assert 3.6 < row["Mparam"] < 4.01
        assert row["of peak"] > 0
        assert row["pictures/s"] * row["MFLOP/picture"] == pytest.approx(1e3 * row["GFLOP/s"])
    ahead, step = fp32["rows"][:2]
    assert step["MFLOP/picture"] == pytest.approx(3 * ahead["MFLOP/picture"], rel=0.01)
    assert len(fp32["ratios"]) == 2 * 2 * 2
