"""Muon: orthogonal updates of hidden matrices, AdamW for the rest."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

import zoo
from zoo import testing
from zoo.contract.registry import get_domain, get_recipe
from zoo.core import seeds
from zoo.model.loading import build
from zoo.nets.blocks import end
from zoo.training.muon import Muon, hidden_matrices, orthogonal


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 40), (1, 40, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_update_is_nearly_orthogonal_and_keeps_the_directions(shape, dtype):
    g = torch.randn(shape, generator=seeds.generator(0))
    u, _, vh = torch.linalg.svd(g, full_matrices=False)
    out = orthogonal(g, dtype=dtype)
    values = torch.linalg.svdvals(out)
    assert out.dtype == g.dtype and values.min() > 0.5 and values.max() < 1.35
    # in the basis of g's own singular vectors it is diagonal
    inside = u.mT @ out @ vh.mT
    off = inside - torch.diag_embed(torch.diagonal(inside, dim1=-2, dim2=-1))
    assert off.abs().max() < (1e-4 if dtype == torch.float32 else 0.1)


def test_the_scale_of_the_gradient_does_not_matter():
    g = torch.randn(1, 6, 9, generator=seeds.generator(0))
    torch.testing.assert_close(orthogonal(g, dtype=torch.float32), orthogonal(1e3 * g, dtype=torch.float32))
    assert torch.equal(orthogonal(torch.zeros(1, 4, 4)), torch.zeros(1, 4, 4))


def test_which_weights_are_hidden_matrices():
    net = zoo.create("image/fashion-ddpm").denoiser
    names = {id(p): k for k, p in net.named_parameters()}
    chosen = {names[id(p)] for p in hidden_matrices(net)}
    assert {"net.middle.0.conv1.weight", "net.middle.0.film.weight", "net.middle.1.attention.qkv.weight"} <= chosen
    assert not {k for k in chosen if "entry" in k or "exit" in k or "table" in k or "norm" in k or k.endswith("bias")}


def by_names(module):
    """The rule before nets said it: layers whose dotted name holds "entry" or "exit" are ends."""
    found = set()
    for name, part in module.named_modules():
        if isinstance(part, (nn.Linear, nn.Conv1d, nn.Conv2d)) and not {"entry", "exit"} & set(name.split(".")):
            found.add(id(part.weight))
    return [k for k, p in module.named_parameters() if id(p) in found]


@pytest.mark.parametrize("name", [n for n in zoo.list_models() if get_recipe(n).role == "model"])
def test_every_net_calls_its_ends_what_it_always_did(name):
    recipe = get_recipe(name)
    net = build(recipe, testing.untrained_stage(get_domain(recipe.domain), recipe)).denoiser
    chosen = {id(p) for p in hidden_matrices(net)}
    assert [k for k, p in net.named_parameters() if id(p) in chosen] == by_names(net)


def test_layers_inside_an_end_are_ends():
    net = nn.Sequential(end(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4))), nn.Linear(4, 4), nn.Linear(4, 2))
    assert [id(p) for p in hidden_matrices(net)] == [id(net[1].weight), id(net[2].weight)]


def step(module, optimizer, x):
    optimizer.zero_grad()
    module(x).square().sum().backward()
    optimizer.step()


def test_other_parameters_take_the_step_of_adamw():
    torch.manual_seed(0)
    a = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5))
    b = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5))
    b.load_state_dict(a.state_dict())
    x = torch.randn(7, 4)
    before = a[0].weight.detach().clone()
    step(a, Muon(a, 0.01, betas=(0.9, 0.99)), x)
    step(b, torch.optim.AdamW(b.parameters(), 0.01, betas=(0.9, 0.99), weight_decay=0.01), x)
    assert torch.equal(a[1].weight, b[1].weight) and torch.equal(a[0].bias, b[0].bias)
    moved = (a[0].weight.detach() - before * (1 - 0.01 * 0.01)) / -0.01
    values = torch.linalg.svdvals(moved) / (0.2 * 5**0.5)
    assert values.min() > 0.5 and values.max() < 1.35, "the size that AdamW's update has"
    assert not torch.allclose(a[0].weight, b[0].weight)


def test_convolutions_are_matrices_of_their_rows_whatever_the_memory_format():
    torch.manual_seed(0)
    plain, last = nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 3)
    last.load_state_dict(plain.state_dict())
    last.to(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 6, 6)
    for net in (plain, last):
        optimizer = Muon(net, 0.02, dtype=torch.float32)
        for _ in range(3):
            step(net, optimizer, x)
    torch.testing.assert_close(plain.weight, last.weight, atol=1e-5, rtol=1e-4)


def test_it_solves_a_regression():
    torch.manual_seed(0)
    x = torch.randn(256, 16, generator=seeds.generator(0))
    y = torch.tanh(x @ torch.randn(16, 8, generator=seeds.generator(1)))
    net = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 8))
    optimizer, losses = Muon(net, 0.02), []
    for k in range(150):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - k / 150)
        optimizer.zero_grad()
        loss = (net(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


PROCESSES = """
import torch
import torch.distributed as dist
from torch import nn
from zoo.training.muon import Muon

dist.init_process_group("gloo")
nets = []
for processes in (1, 2):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 16), nn.Conv1d(4, 6, 3), nn.LayerNorm(4))
    optimizer = Muon(net, 0.02, dtype=torch.bfloat16, processes=processes)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        for p in net.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
    nets.append(net)
same = all(torch.equal(a, b) for a, b in zip(*[net.parameters() for net in nets]))
dist.destroy_process_group()  # else its threads may outlive the interpreter, which ends the process with an error
assert same
"""


@pytest.mark.slow
def test_processes_that_share_the_work_take_the_step_of_one(tmp_path):
    (script := tmp_path / "run.py").write_text(PROCESSES)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
