"""The net of latents: order and padding do not matter, cost is linear, what cannot be is refused."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from zoo.errors import ConfigError, ShapeError
from zoo.point3d.latents import CrossAttention, LatentNet

SMALL = {"width": 24, "latents": 5, "rounds": 2, "inner": 8, "heads": 2, "emb_dim": 12}


def build(**options):
    torch.manual_seed(0)
    net = LatentNet(16, **SMALL | options)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.2 * torch.randn(p.shape)
    return net.double()


def inputs(B=3, N=7):
    g = torch.Generator().manual_seed(1)
    return torch.randn(B, N, 16, generator=g).double(), torch.randn(B, 12, generator=g).double()


MASK = torch.arange(7) < torch.tensor([[7], [3], [5]])


def test_gradient_reaches_every_parameter():
    net, (tokens, emb) = build(depth=2), inputs()
    net(tokens, emb, MASK).square().sum().backward()
    assert [k for k, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_order_of_tokens_and_the_other_rows_do_not_matter():
    net, (tokens, emb), order = build(), inputs(), torch.randperm(7)
    out = net(tokens, emb)
    torch.testing.assert_close(net(tokens[:, order], emb), out[:, order], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(net(tokens[1:2], emb[1:2]), out[1:2], rtol=1e-10, atol=1e-10)
    other = tokens.clone()
    other[:, 0] *= -1
    assert not torch.allclose(net(other, emb)[:, 1:], out[:, 1:], atol=1e-3), "tokens hear of each other"
    assert not torch.allclose(net(tokens, emb + 1), out, atol=1e-3)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e4])
def test_padding_may_hold_anything_and_padded_equals_alone(bad):
    net, (tokens, emb) = build(), inputs()
    out = net(tokens.masked_fill(~MASK[..., None], bad), emb, MASK)
    for i, n in enumerate([7, 3, 5]):
        torch.testing.assert_close(out[i, :n], net(tokens[i : i + 1, :n], emb[i : i + 1])[0], rtol=1e-10, atol=1e-10)
    assert net(tokens, emb, torch.zeros(3, 7, dtype=torch.bool)).isfinite().all(), "a row that is all padding"


def test_cost_is_linear_in_the_tokens():
    net, cost = build().float(), {}
    for N in (100, 1000, 1900):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(torch.zeros(1, N, 16), torch.zeros(1, 12))
        cost[N] = counter.get_total_flops()
    assert cost[1900] - cost[1000] == cost[1000] - cost[100]


def test_attention_is_the_weighted_mean_of_the_others():
    """Equal keys weigh equally, so what is read is the mean of the values."""
    torch.manual_seed(0)
    attention = CrossAttention(4, 6, 8, 2).double()
    others = torch.randn(1, 5, 6).double()
    with torch.no_grad():
        attention.kv.weight[:8] = 0
        values = others @ attention.kv.weight[8:].T + attention.kv.bias[8:]
        want = attention.out(values.mean(1, keepdim=True)).expand(1, 3, 4)
        torch.testing.assert_close(attention(torch.randn(1, 3, 4).double(), others), want)


@pytest.mark.parametrize(
    "options", [{"latents": 0}, {"rounds": 0}, {"depth": 0}, {"dropout": 1.0}, {"token_ratio": 0.0}, {"heads": 3}]
)
def test_numbers_that_cannot_be_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        LatentNet(16, **SMALL | options)


def test_wrong_shapes_are_refused():
    net, (tokens, emb) = build(), inputs()
    for arguments in (
        (tokens[0], emb),
        (tokens[..., :5], emb),
        (tokens, emb[:2]),
        (tokens, emb, MASK[:, :4]),
        (tokens, emb, MASK * 1),
    ):
        with pytest.raises(ShapeError):
            net(*arguments)
