"""The trained part of a text condition, and nets that attend to its tokens."""

import pytest
import torch

from zoo.contract.conditions import Label
from zoo.contract.text import Text
from zoo.errors import ConfigError, ShapeError
from zoo.nets.blocks import Conditioning, CrossAttention
from zoo.nets.grid import GridTransformer, GridUNet
from zoo.nets.text import TextEmbedding
from zoo.nets.unet import CrossBlock, UNet

TEXT = Text(length=4, width=16, depth=1, heads=2)
UNET = {"channels": 8, "multipliers": [1, 1], "blocks": 1, "heads": 2, "emb_dim": 16}
DIT = {"patch": 2, "dim": 16, "depth": 2, "heads": 2, "emb_dim": 16}


def perturbed(net):
    """No parameter at zero, where a mistake would not show."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return net


def embedding(dim=12, **options):
    torch.manual_seed(0)
    vectors = torch.randint(-127, 128, (9, 6), dtype=torch.int8)
    return perturbed(TextEmbedding(vectors, torch.rand(9), dim, 4, 16, 2, 2, **options))


def test_padding_says_nothing_and_order_does():
    net = embedding()
    short, swapped, other = (torch.tensor([v]) for v in ([3, 5, 0, 0], [5, 3, 0, 0], [3, 5, 7, 0]))
    a, b, c = (net.told(v, 1) for v in (short, swapped, other))
    assert a.mask.tolist() == [[True, True, False, False]]
    assert not torch.allclose(a.vector, b.vector, atol=1e-3) and not torch.allclose(a.vector, c.vector, atol=1e-3)
    with torch.no_grad():
        net.positions[2:] += 10.0  # of padding alone
    again = net.told(short, 1)
    torch.testing.assert_close(again.vector, a.vector)
    torch.testing.assert_close(again.tokens[:, :2], a.tokens[:, :2])


def test_a_row_that_is_not_given_has_the_learned_null_alone():
    net = embedding()
    told = net.told(torch.tensor([[3, 5, 0, 0], [-1] * 4]), 2)
    torch.testing.assert_close(told.tokens[1], net.null.expand(4, -1))
    assert told.mask[1].tolist() == [True, False, False, False]
    torch.testing.assert_close(told.vector[1], net.pool(net.null))
    torch.testing.assert_close(net(None, 2), net.pool(net.null).expand(2, -1))


def test_the_table_is_frozen_and_not_in_the_weights():
    net = embedding()
    assert not any("vectors" in k or "scale" in k for k in net.state_dict())
    assert net.vectors.dtype == torch.int8 and net.half().vectors.dtype == torch.int8
    assert not any(p.shape == (9, 6) for p in net.parameters())


def test_wrong_values_are_refused():
    net = embedding()
    with pytest.raises(ShapeError, match="texts"):
        net(torch.tensor([[1, 2, 3]]), 1)
    with pytest.raises(ConfigError, match="the row 10"):
        net(torch.tensor([[10, 0, 0, 0]]), 1)


def test_cross_attention_is_the_formula_and_starts_as_zero():
    net = CrossAttention(8, 2, 6)
    x, tokens = torch.randn(2, 5, 8), torch.randn(2, 3, 6)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert not net(x, tokens, mask).any()
    perturbed(net).double()
    x, tokens = x.double(), tokens.double()
    out = net(x, tokens, mask)
    for b, count in ((0, 2), (1, 1)):
        q = net.q_norm(net.q(x[b]).view(5, 2, 4)).transpose(0, 1)
        k, v = net.kv(tokens[b, :count]).view(count, 2, 2, 4).permute(1, 2, 0, 3)
        weights = torch.softmax(q @ net.k_norm(k).transpose(1, 2) / 2, -1)
        torch.testing.assert_close(out[b], net.out((weights @ v).transpose(0, 1).reshape(5, 8)))
    moved = net(x, tokens.masked_fill(~mask[..., None], 7.0), mask)
    torch.testing.assert_close(moved, out)
    with pytest.raises(ShapeError, match="mask"):
        net(x, tokens, mask[:, :2])
    with pytest.raises(ConfigError, match="heads"):
        CrossAttention(8, 3, 6)


def test_tokens_of_all_conditions_are_joined():
    both = Conditioning({"text": TEXT, "label": Label(values=("a", "b")), "more": TEXT}, 16, 1.0)
    told = both.told(torch.zeros(2), {"text": TEXT.read("red car", 2).values})
    assert both.token_dim == 16 and told.tokens.shape == (2, 8, 16)
    assert told.mask[0].tolist() == [True, True, False, False, True, False, False, False]
    torch.testing.assert_close(both(torch.zeros(2), {}), both.told(torch.zeros(2), {}).vector)
    alone = Conditioning({"label": Label(values=("a",))}, 16, 1.0)
    assert alone.token_dim is None
    assert alone.told(torch.zeros(2), {}).tokens is None


@pytest.mark.parametrize(("kind", "options"), [(GridUNet, UNET), (GridTransformer, DIT)])
def test_a_net_attends_to_the_words(kind, options):
    torch.manual_seed(0)
    net = perturbed(kind((3, 8, 8), {"text": TEXT}, **options)).eval()
    x, t = torch.randn(2, 3, 8, 8), torch.zeros(2)
    values = TEXT.read(["red car", "dog"], 2).values
    out = net(x, t, {"text": values})
    assert not torch.allclose(out, net(x, t, {"text": values.flip(0)}), atol=1e-4)
    # the vector alone would leave the words' share in the tokens out
    blind = [m for m in net.modules() if isinstance(m, CrossAttention)]
    assert blind
    for part in blind:
        torch.nn.init.zeros_(part.out.weight)
    assert not torch.allclose(out, net(x, t, {"text": values}), atol=1e-4)
    torch.testing.assert_close(net(x[:1], t[:1], {"text": values[:1]}), net(x, t, {"text": values})[:1])


@pytest.mark.parametrize(("kind", "options"), [(GridUNet, UNET), (GridTransformer, DIT)])
def test_nets_without_text_are_as_they_were(kind, options):
    net = kind((3, 8, 8), {"label": Label(values=("a", "b"))}, **options)
    assert not any(isinstance(m, CrossAttention) for m in net.modules())
    assert not any("cross" in k or ".kv." in k for k in net.state_dict())


def test_a_net_says_which_levels_attend_to_words():
    net = GridUNet((3, 8, 8), {"text": TEXT}, **UNET, cross=[True, False])
    assert [any(isinstance(m, CrossBlock) for m in stage) for stage in net.net.down] == [True, False, False]
    default = GridUNet((3, 8, 8), {"text": TEXT}, **UNET)
    assert [any(isinstance(m, CrossBlock) for m in stage) for stage in default.net.down] == [False, False, True]
    with pytest.raises(ConfigError, match="cross flags"):
        UNet(2, 3, 3, channels=8, cross=[True])
    with pytest.raises(ShapeError, match="there are none"):
        UNet(2, 3, 3, channels=8, heads=2, emb_dim=16, token_dim=6)(torch.randn(1, 3, 4, 4), torch.randn(1, 16))
