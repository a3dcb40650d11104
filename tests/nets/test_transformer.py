"""The transformer: identities at the start, padding, positions, the shared modulation."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.errors import ConfigError, ShapeError
from zoo.nets.transformer import Transformer, sincos_positions

BOTH = pytest.mark.parametrize("shared", [True, False])


def perturbed(net: nn.Module, std: float = 0.2, seed: int = 0) -> nn.Module:
    """The net with noise on every parameter, so that no branch is nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p += std * torch.randn(p.shape, generator=generator)
    return net


def build(shared: bool = True, **options) -> Transformer:
    torch.manual_seed(0)
    options = {"dim": 16, "depth": 2, "heads": 2, "emb_dim": 12} | options
    return perturbed(Transformer(**options, shared_modulation=shared))


def inputs(B: int = 3, N: int = 7, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(B, N, 16, generator=generator, dtype=dtype),
        torch.randn(B, 12, generator=generator, dtype=dtype),
    )


@BOTH
def test_starts_as_a_plain_norm(shared):
    """adaLN-Zero: closed gates make every block the identity, and the last modulation does nothing."""
    tokens, emb = inputs()
    net = Transformer(16, depth=3, heads=4, emb_dim=12, shared_modulation=shared)
    torch.testing.assert_close(net(tokens, emb), F.layer_norm(tokens, (16,), eps=1e-6), rtol=0, atol=1e-6)


@BOTH
def test_gradient_reaches_every_parameter(shared):
    net, (tokens, emb) = build(shared), inputs()
    net(tokens, emb, torch.arange(7)[None] < torch.tensor([[7], [3], [5]])).square().sum().backward()
    assert [k for k, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e4])
def test_padding_may_hold_anything(bad):
    net, (tokens, emb) = build(), inputs()
    mask = torch.arange(7)[None] < torch.tensor([[7], [3], [5]])
    tokens.requires_grad_()
    want = net(tokens, emb, mask)
    got = net(tokens.masked_fill(~mask[..., None], bad), emb, mask)
    assert torch.equal(got[mask], want[mask])
    want[mask].sum().backward()
    assert not tokens.grad[~mask].any()


def test_padded_equals_alone():
    """A sequence gives the same whether it stands alone or padded in a batch, with a bias too."""
    net, (tokens, emb) = build().double(), inputs(dtype=torch.float64)
    lengths, bias = [7, 3, 5], torch.randn(3, 2, 7, 7, dtype=torch.float64)
    out = net(tokens, emb, torch.arange(7)[None] < torch.tensor(lengths)[:, None], bias)
    for i, n in enumerate(lengths):
        alone = net(tokens[i : i + 1, :n], emb[i : i + 1], None, bias[i : i + 1, :, :n, :n])
        torch.testing.assert_close(out[i, :n], alone[0], rtol=1e-10, atol=1e-10)


def test_order_and_places_of_padding_do_not_matter():
    net, (tokens, emb) = build().double(), inputs(dtype=torch.float64)
    mask = torch.tensor([[True, False, True, True, False, True, True]]).expand(3, -1)
    bias, order = torch.randn(1, 2, 7, 7, dtype=torch.float64), torch.randperm(7)
    out = net(tokens, emb, mask, bias)
    again = net(tokens[:, order], emb, mask[:, order], bias[:, :, order][:, :, :, order])
    torch.testing.assert_close(again[mask[:, order]], out[:, order][mask[:, order]], rtol=1e-10, atol=1e-10)


def test_bias_and_embedding_matter():
    net, (tokens, emb) = build(), inputs()
    out = net(tokens, emb)
    assert (net(tokens, emb, None, torch.randn(1, 2, 7, 7)) - out).abs().max() > 1e-3
    moved = net(tokens, emb.index_add(0, torch.tensor([1]), torch.ones(1, 12)))
    assert (moved[1] - out[1]).abs().max() > 1e-3
    assert torch.allclose(moved[::2], out[::2], atol=1e-6)


def test_block_follows_the_figure():
    """One block spelled out: x + gate (branch of (norm x) (1 + scale) + shift), twice."""
    net, (tokens, emb) = build(depth=1).double(), inputs(dtype=torch.float64)
    block, act = net.blocks[0], F.silu(emb)
    m = (act @ net.shared[1].weight.T + net.shared[1].bias + block.modulation).view(3, 6, 1, 16).unbind(1)

    def norm(x):
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()

    x = tokens + m[2] * block.attention(norm(tokens) * (1 + m[1]) + m[0])
    hidden = (norm(x) * (1 + m[4]) + m[3]) @ block.mlp[0].weight.T + block.mlp[0].bias
    hidden = hidden * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
    x = x + m[5] * (hidden @ block.mlp[3].weight.T + block.mlp[3].bias)
    shift, scale = (act @ net.final[1].weight.T + net.final[1].bias)[:, None].chunk(2, 2)
    torch.testing.assert_close(net(tokens, emb), norm(x) * (1 + scale) + shift, rtol=1e-10, atol=1e-10)


def test_shared_modulation_is_a_tied_case_of_the_full_one_and_smaller():
    shared, full, (tokens, emb) = build(True), build(False), inputs()
    state = {k: v for k, v in shared.state_dict().items() if not k.startswith("shared") and not k.endswith("modulation")}
    for i, block in enumerate(shared.blocks):
        state[f"blocks.{i}.modulation.1.weight"] = shared.shared[1].weight
        state[f"blocks.{i}.modulation.1.bias"] = shared.shared[1].bias + block.modulation
    full.load_state_dict(state)
    torch.testing.assert_close(full(tokens, emb), shared(tokens, emb))

    def size(flag):
        return sum(p.numel() for p in Transformer(64, 6, 4, 64, shared_modulation=flag).parameters())

    assert size(True) < 0.75 * size(False)


def test_dropout_only_in_training():
    net, (tokens, emb) = build(dropout=0.5), inputs()
    assert not torch.equal(net(tokens, emb), net(tokens, emb))
    net.eval()
    assert torch.equal(net(tokens, emb), net(tokens, emb))


def test_bf16_is_close():
    net, (tokens, emb) = build(), inputs()
    mask = torch.arange(7)[None] < torch.tensor([[7], [3], [5]])
    want = net(tokens, emb, mask)
    with torch.autocast("cpu", torch.bfloat16):
        got = net(tokens, emb, mask)
        got.float().square().mean().backward()
    assert (got.float() - want).norm() < 0.03 * want.norm()
    assert all(p.grad.dtype == torch.float32 for p in net.parameters())
    assert net.to(torch.bfloat16)(tokens.bfloat16(), emb.bfloat16(), mask).dtype == torch.bfloat16


# ---- positions


@pytest.mark.parametrize("grid", [(5,), (3, 4)])
def test_positions_follow_the_formula(grid):
    dim, got = 16, sincos_positions(grid, 16)
    part, index = dim // len(grid), 0
    for place in torch.cartesian_prod(*[torch.arange(n) for n in grid]).view(-1, len(grid)).tolist():
        want = []
        for p in place:
            angles = [p / 10_000 ** (i / (part // 2)) for i in range(part // 2)]
            want += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        assert got[index].tolist() == pytest.approx(want, abs=1e-6)
        index += 1
    assert index == len(got)


def test_positions_are_distinct_and_only_offsets_count():
    """The inner product of two positions depends on their offset alone."""
    p = sincos_positions((6, 5), 32)
    gram = (p @ p.T).view(6, 5, 6, 5)
    torch.testing.assert_close(gram[1:, 1:, 1:, 1:], gram[:-1, :-1, :-1, :-1])
    assert torch.cdist(p, p).fill_diagonal_(1.0).min() > 0.5


# ---- errors


def test_rejects():
    net, (tokens, emb) = build(), inputs()
    for bad in (tokens[..., :8], tokens[0]):
        with pytest.raises(ShapeError, match="tokens"):
            net(bad, emb)
    for bad in (emb[:2], emb[:, :5]):
        with pytest.raises(ShapeError, match="emb"):
            net(tokens, bad)
    with pytest.raises(ShapeError, match="mask"):
        net(tokens, emb, torch.ones(3, 6, dtype=torch.bool))
    with pytest.raises(ShapeError, match="bias"):
        net(tokens, emb, None, torch.zeros(3, 7, 7))
    for options in ({"heads": 3}, {"depth": 0}, {"mlp_ratio": 0.0}, {"dropout": 1.0}):
        with pytest.raises(ConfigError):
            build(**options)
    for grid, dim in (((2, 2), 6), ((), 8), ((0,), 8)):
        with pytest.raises(ConfigError, match="positions"):
            sincos_positions(grid, dim)
