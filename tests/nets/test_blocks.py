"""Embeddings, attention and modulation against explicit formulas and identities."""

import math

import pytest
import torch
from torch import nn

from zoo.errors import ConfigError, ShapeError
from zoo.nets.blocks import Attention, LabelEmbedding, TimeEmbedding, VectorEmbedding, end, is_end, modulate, zero


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


# ---- time


def test_time_features_follow_the_formula():
    got = TimeEmbedding(8, scale=3.0).features(torch.tensor([0.0, 1.5, 333.0], dtype=torch.float64))
    for row, t in zip(got, [0.0, 1.5, 333.0], strict=True):
        angles = [3 * t / 10_000 ** (i / 4) for i in range(4)]
        want = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        assert row.tolist() == pytest.approx(want, abs=2e-4)  # fp32 frequencies times an angle of 1000


def test_time_scale_multiplies_t_first():
    one, ten = TimeEmbedding(16), TimeEmbedding(16, scale=10.0)
    ten.load_state_dict(one.state_dict())
    t = torch.tensor([0.0, 7.0, 99.9])
    torch.testing.assert_close(ten(t), one(10 * t))


@pytest.mark.parametrize("how", ["autocast", "cast"])
def test_time_features_keep_neighbouring_steps_apart_in_bf16(how):
    """In bf16, 998 and 999 are one number, and so would be their features."""
    net, t = TimeEmbedding(32), torch.tensor([998.0, 999.0])
    want = net.features(t)
    assert (want[0] - want[1]).abs().max() > 0.5
    if how == "cast":
        net.to(torch.bfloat16)
        assert torch.equal(net.features(t), want)
        assert net(t).dtype == torch.bfloat16
    else:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(net.features(t), want)
            assert net(t).dtype == torch.bfloat16


def test_time_takes_step_indices_and_runs_in_fp64():
    net = TimeEmbedding(8)
    torch.testing.assert_close(net(torch.tensor([0, 999])), net(torch.tensor([0.0, 999.0])))
    assert net.double()(torch.tensor([0.1])).dtype == torch.float64


def test_time_rejects():
    with pytest.raises(ConfigError, match="dim=7"):
        TimeEmbedding(7)
    with pytest.raises(ShapeError, match=r"\(2, 1\)"):
        TimeEmbedding(8)(torch.zeros(2, 1))


# ---- conditions


def test_label_null_replaces_rows_that_are_not_given():
    net = LabelEmbedding(10, 4)
    label = torch.tensor([3, 9, 0])
    null = net(None, 3)
    assert torch.equal(null, net.table.weight[10].expand(3, -1))
    assert torch.equal(null, net(torch.tensor([-1, -1, -1]), 3))
    assert torch.equal(net(label, 3), net.table.weight[label])
    mixed = net(torch.tensor([3, -1, 0]), 3)
    assert torch.equal(mixed, torch.stack([net.table.weight[3], null[0], net.table.weight[0]]))


def test_label_gradient_goes_to_the_rows_in_use():
    net = LabelEmbedding(4, 3)
    net(torch.tensor([2, -1]), 2).sum().backward()
    assert net.table.weight.grad.abs().sum(1).tolist() == [0, 0, 3, 0, 3]


@pytest.mark.parametrize("label", [[0, 4], [-2, 1]])
def test_label_out_of_range_is_not_a_silent_null(label):
    with pytest.raises(ConfigError, match=r"0\.\.3"):
        LabelEmbedding(4, 3)(torch.tensor(label), 2)


def test_label_rejects_shapes():
    with pytest.raises(ShapeError, match="labels"):
        LabelEmbedding(4, 3)(torch.zeros(2, dtype=torch.long), 3)
    with pytest.raises(ConfigError, match="classes=0"):
        LabelEmbedding(0, 3)


def test_a_vector_of_nan_is_the_null_and_its_gradient_is_finite():
    net = VectorEmbedding(5, 4)
    x = torch.randn(3, 5)
    x[1, 2] = torch.nan
    out, plain = net(x, 3), net(x.nan_to_num(), 3)
    assert torch.equal(out[1], net.null) and torch.equal(out[::2], plain[::2]) and not torch.equal(plain[1], net.null)
    assert torch.equal(net(None, 3), net.null.expand(3, -1)) and torch.isfinite(out).all()
    out.sum().backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0 for p in net.parameters())


def test_arrays_of_several_axes_are_one_vector():
    net, x = VectorEmbedding(6, 4), torch.randn(2, 3, 2)
    assert torch.equal(net(x, 2), net(x.flatten(1), 2))


def test_vector_rejects_shapes():
    with pytest.raises(ShapeError, match=r"\(3, 4\)"):
        VectorEmbedding(5, 4)(torch.zeros(3, 4), 3)
    with pytest.raises(ShapeError, match=r"\(2, 5\)"):
        VectorEmbedding(5, 4)(torch.zeros(3, 5), 2)


def test_an_end_is_what_a_net_calls_one():
    layer = nn.Linear(2, 2)
    assert not is_end(layer) and end(layer) is layer and is_end(layer)
    assert list(layer.state_dict()) == ["weight", "bias"], "the mark is not stored"


# ---- attention


def explicit(net: Attention, x, mask=None, bias=None):
    """Attention of one head, one query at a time, from the formula."""
    B, N, D = x.shape
    d, out = D // net.heads, torch.zeros_like(x)
    for b in range(B):
        q, k, v = (x[b] @ w.T + c for w, c in zip(net.qkv.weight.split(D), net.qkv.bias.split(D), strict=True))
        for h in range(net.heads):
            part = slice(h * d, (h + 1) * d)
            qh, kh = q[:, part], k[:, part]
            if net.q_norm is not None:
                qh = qh / (qh.square().mean(1, keepdim=True) + 1e-6).sqrt() * net.q_norm.weight
                kh = kh / (kh.square().mean(1, keepdim=True) + 1e-6).sqrt() * net.k_norm.weight
            for i in range(N):
                logits = (kh @ qh[i]) / math.sqrt(d)
                if bias is not None:
                    logits = logits + bias[b % len(bias), h, i]
                weights = logits.exp() if mask is None else logits.exp() * mask[b]
                out[b, i, part] = (weights / weights.sum()) @ v[:, part]
    return out @ net.out.weight.T + net.out.bias


@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("biased", [0, 1, 2])
def test_attention_equals_the_explicit_softmax(qk_norm, masked, biased):
    net = Attention(12, 3, qk_norm=qk_norm).double()
    for p in net.parameters():
        nn.init.normal_(p, std=0.5)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True, True], [False, True, True, False, False]]) if masked else None
    bias = torch.randn(biased, 3, 5, 5, dtype=torch.float64) if biased else None
    torch.testing.assert_close(net(x, mask, bias), explicit(net, x, mask, bias), rtol=1e-10, atol=1e-10)


def test_attention_mask_stops_padding_and_its_gradient():
    net = Attention(8, 2)
    x = torch.randn(2, 6, 8, requires_grad=True)
    mask = torch.arange(6) < torch.tensor([[4], [6]])
    out = net(x, mask)
    other = torch.where(mask[..., None], x, 1e4 * torch.randn_like(x))
    torch.testing.assert_close(net(other, mask)[mask], out[mask], rtol=0, atol=1e-6)
    out[mask].square().sum().backward()
    assert torch.equal(x.grad.abs().sum(2) > 0, mask)


def test_attention_of_a_row_without_real_tokens_is_finite():
    out = Attention(8, 2)(torch.randn(2, 3, 8), torch.tensor([[False] * 3, [True] * 3]))
    assert out.isfinite().all()


def test_attention_does_not_know_the_order_of_tokens():
    net, x, order = Attention(8, 2), torch.randn(2, 7, 8), torch.randperm(7)
    torch.testing.assert_close(net(x[:, order]), net(x)[:, order])


def test_attention_norm_bounds_the_logits():
    """With QK norm and unit weights, keys and queries a thousand times larger change nothing."""
    net, x = Attention(8, 2).double(), torch.randn(1, 5, 8, dtype=torch.float64)
    before = net(x)
    with torch.no_grad():
        net.qkv.weight[:16] *= 1000
        net.qkv.bias[:16] *= 1000
    torch.testing.assert_close(net(x), before, rtol=1e-3, atol=1e-4)  # eps weighs less


def test_attention_bf16_is_close():
    net, x, bias = Attention(16, 2), torch.randn(2, 9, 16), torch.randn(1, 2, 9, 9)
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    want = net(x, mask, bias)
    with torch.autocast("cpu", torch.bfloat16):
        for m, b, full in ((mask, bias, True), (None, bias, False), (mask, None, False)):
            got = net(x, m, b)
            assert got.dtype == torch.bfloat16
            if full:
                torch.testing.assert_close(got.float(), want, rtol=0.03, atol=0.03)


def test_attention_rejects():
    with pytest.raises(ConfigError, match="dim=10"):
        Attention(10, 3)
    net, x = Attention(8, 2), torch.zeros(2, 5, 8)
    with pytest.raises(ShapeError, match="mask"):
        net(x, torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ShapeError, match="bool"):
        net(x, torch.ones(2, 5))
    with pytest.raises(ShapeError, match="bias"):
        net(x, None, torch.zeros(2, 1, 5, 5))


# ---- small parts


def test_modulate():
    x, shift, scale = torch.randn(2, 3, 4), torch.randn(2, 4), torch.randn(2, 4)
    want = torch.stack([x[b] * (1 + scale[b]) + shift[b] for b in range(2)])
    torch.testing.assert_close(modulate(x, shift, scale), want)


def test_zero_returns_the_module_it_cleared():
    layer = nn.Linear(3, 2)
    assert zero(layer) is layer
    assert not any(p.any() for p in layer.parameters())


@pytest.mark.parametrize("biased", [False, True])
def test_attention_written_out_for_bf16_training_is_the_fused_one(biased):
    from zoo.nets.blocks import attend

    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 7, 8, generator=g).bfloat16() for _ in range(3))
    bias = torch.randn(2, 1, 1, 7, generator=g).bfloat16() if biased else None
    fused = torch.nn.functional.scaled_dot_product_attention(
        q.float(), k.float(), v.float(), attn_mask=bias.float() if biased else None
    )
    trained = attend(q.requires_grad_(), k, v, bias)
    assert trained.dtype == torch.bfloat16 and trained.requires_grad
    torch.testing.assert_close(trained.float(), fused, atol=0.03, rtol=0.03)
