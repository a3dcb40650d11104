"""The U-Net: one code for signals and pictures, the start as zero, translation, layout, errors."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.errors import ConfigError, ShapeError
from zoo.nets.blocks import Told
from zoo.nets.unet import AttentionBlock, Conv1d, ResBlock, UNet, norm

BOTH = pytest.mark.parametrize("dims", [1, 2])


def perturbed(net: nn.Module, std: float = 0.1) -> nn.Module:
    """The net with noise on every parameter, so that no branch is nothing."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p += std * torch.randn(p.shape, generator=generator).to(p)
    return net


def build(dims: int, **options) -> UNet:
    torch.manual_seed(0)
    return perturbed(
        UNet(dims, **{"in_channels": 2, "out_channels": 3, "channels": 8, "heads": 2, "emb_dim": 12, "blocks": 1} | options)
    )


def inputs(*shape: int, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape, generator=generator, dtype=dtype), torch.randn(shape[0], 12, generator=generator, dtype=dtype)


@BOTH
@pytest.mark.parametrize(
    ("size", "options"),
    [
        (28, {"patch": 2}),
        (7, {"multipliers": (2,), "attention": (True,)}),
        (12, {"multipliers": (1, 2, 3), "attention": (False, True, False), "blocks": 2, "kernel": 5, "heads": 4}),
        (12, {"patch": 3, "dropout": 0.1}),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_shapes(dims, size, options, batch):
    x, emb = inputs(batch, 2, *[size] * dims)
    out = build(dims, **options)(x, emb)
    assert out.shape == (batch, 3, *[size] * dims)
    assert out.dtype == torch.float32
    assert out.isfinite().all()


def test_height_and_width_may_differ():
    x, emb = inputs(2, 2, 8, 20)
    assert build(2, patch=2)(x, emb).shape == (2, 3, 8, 20)


@BOTH
def test_starts_as_zero(dims):
    net = UNet(dims, 2, 3, channels=8, emb_dim=12)
    x, emb = inputs(2, 2, *[8] * dims)
    assert not net(x, emb).any()


@BOTH
def test_gradient_reaches_every_parameter(dims):
    net = build(dims, blocks=2, multipliers=(1, 2, 2), attention=(False, True, False))
    x, emb = inputs(3, 2, *[8] * dims)
    x.requires_grad_()
    emb.requires_grad_()
    net(x, emb).square().sum().backward()
    missing = [k for k, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []
    assert x.grad.abs().amin() > 0  # every position of the input counts
    assert emb.grad.abs().sum(1).all()


@BOTH
def test_every_skip_counts(dims):
    """Each join reads both halves of what it concatenates: the deep path and what the way down kept."""
    net = build(dims, blocks=2)
    net(*inputs(2, 2, *[8] * dims)).square().sum().backward()
    joins = [s[0] for s in net.up if isinstance(s[0], ResBlock)]
    assert len(joins) == 2 * 3
    for block in joins:
        per_input = block.conv1.weight.grad.abs().sum(0).flatten(1).sum(1)
        assert per_input.all()
        assert block.conv1.in_channels > block.conv1.out_channels


def test_signals_are_pictures_of_equal_columns():
    """A 2-D net whose kernels live in their middle column maps a picture of equal columns to equal columns, and each
    is what the 1-D net makes of one: convolutions see one column, norms and softmax the same values several times."""
    one = build(1, multipliers=(1, 2, 2), attention=(True, False, True), blocks=2).double()
    two = build(2, multipliers=(1, 2, 2), attention=(True, False, True), blocks=2).double()
    state = one.state_dict()
    for key, value in two.state_dict().items():
        if value.ndim == 4:
            wide = torch.zeros_like(value)
            wide[..., value.shape[-1] // 2] = state[key]
            state[key] = wide
    two.load_state_dict(state)
    x, emb = inputs(2, 2, 16, dtype=torch.float64)
    want = one(x, emb)[..., None].expand(-1, -1, -1, 8)
    assert want.std() > 0.01
    torch.testing.assert_close(two(x[..., None].expand(-1, -1, -1, 8), emb), want, rtol=1e-9, atol=1e-9)


def bump(length: int, at: int) -> torch.Tensor:
    x = torch.zeros(1, 2, length, dtype=torch.float64)
    x[..., at : at + 5] = torch.tensor([[1.0, -2.0, 3.0, 0.5, 1.0], [0.3, 2.0, -1.0, 1.0, 1.0]])
    return x


def test_translation_by_the_total_factor_moves_the_output():
    net = build(1, patch=2, attention=(False, False)).double()
    assert net.factor == 4
    _, emb = inputs(1, 2, 4, dtype=torch.float64)
    reach = 120  # further than the net sees, so that the bump and the zero padding at the ends stay apart
    out, inner = net(bump(512, 250), emb), slice(reach, 512 - reach)
    for shift, equal in ((4, True), (12, True), (1, False), (2, False)):
        moved = net(bump(512, 250 + shift), emb).roll(-shift, 2)
        assert torch.allclose(moved[..., inner], out[..., inner], rtol=0, atol=1e-9) == equal


@BOTH
def test_samples_of_a_batch_do_not_meet(dims):
    net = build(dims, patch=2).double()
    x, emb = inputs(3, 2, *[8] * dims, dtype=torch.float64)
    out = net(x, emb)
    for i in range(3):
        torch.testing.assert_close(net(x[i : i + 1], emb[i : i + 1]), out[i : i + 1], rtol=1e-9, atol=1e-10)


@BOTH
def test_residual_block_follows_the_formula(dims):
    block = perturbed(ResBlock(dims, 4, 8, 12, 3, 0.0)).double()
    x, emb = inputs(2, 4, *[5] * dims, dtype=torch.float64)
    conv = F.conv1d if dims == 1 else F.conv2d

    def grouped(h, layer):
        flat = h.reshape(len(h), layer.num_groups, -1)
        flat = (flat - flat.mean(2, keepdim=True)) / (flat.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
        return flat.reshape(h.shape) * spread(layer.weight) + spread(layer.bias)

    def spread(v):
        return v.view(*v.shape, *[1] * dims)

    h = grouped(x, block.norm1)
    h = conv(h * h.sigmoid(), block.conv1.weight, block.conv1.bias, padding=1)
    scale, shift = (emb @ block.film.weight.T + block.film.bias).split(8, 1)
    h = grouped(h, block.norm2) * (1 + spread(scale)) + spread(shift)
    want = conv(h * h.sigmoid(), block.conv2.weight, block.conv2.bias, padding=1) + conv(x, block.skip.weight, block.skip.bias)
    torch.testing.assert_close(block(x, Told(emb)), want, rtol=1e-10, atol=1e-10)


def test_attention_block_reads_positions_as_tokens():
    block = perturbed(AttentionBlock(8, 2)).double()
    x, _ = inputs(2, 8, 3, 4, dtype=torch.float64)
    tokens = torch.stack([block.norm(x)[:, :, i, j] for i in range(3) for j in range(4)], 1)
    want = block.attention(tokens)
    got = block(x, torch.empty(0)) - x
    for k, (i, j) in enumerate((i, j) for i in range(3) for j in range(4)):
        torch.testing.assert_close(got[:, :, i, j], want[:, k], rtol=1e-10, atol=1e-10)


@BOTH
@pytest.mark.parametrize("p", [1, 2, 3])
def test_fold_gathers_neighbours_into_channels(dims, p):
    net = build(dims, patch=p)
    x, _ = inputs(2, 2, *[6] * dims)
    folded = net.fold(x)
    assert folded.shape == (2, 2 * p**dims, *[6 // p] * dims)
    assert torch.equal(net.unfold(folded), x)
    window = (slice(0, p),) * dims  # the first p^dims neighbours are the channels of the first position
    assert torch.equal(folded[(..., *[0] * dims)].view(2, 2, -1), x[(..., *window)].reshape(2, 2, -1))


@BOTH
def test_samples_stay_channels_last_inside(dims):
    """A layer that fell back to the plain layout would cost a copy each way and a slower convolution."""
    net, plain = build(dims, patch=2), []
    net = net.to(memory_format=torch.channels_last) if dims == 2 else net

    def look(name):
        def hook(module, args, out):
            for t in (args[0], out):
                if t.ndim == 4 and not t.is_contiguous(memory_format=torch.channels_last):
                    plain.append(name)

        return hook

    for name, module in net.named_modules():
        if name and ".attention." not in name:  # heads make its tensors 4-D, and they are tokens
            module.register_forward_hook(look(name))
    x, emb = inputs(2, 2, *[16] * dims)
    out = net(x, emb)
    assert plain == []
    assert out.is_contiguous()
    if dims == 2:
        torch.testing.assert_close(net(x.contiguous(memory_format=torch.channels_last), emb), out)
    convolutions = [m.weight for m in net.modules() if isinstance(m, nn.Conv1d | nn.Conv2d)]
    rows = [w[:, :, None] if dims == 1 else w for w in convolutions]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in rows)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 1)])
def test_a_signal_is_a_picture_of_one_row(kernel, stride):
    torch.manual_seed(0)
    ours = Conv1d(4, 6, kernel, stride=stride, padding=kernel // 2).double()
    plain = nn.Conv1d(4, 6, kernel, stride=stride, padding=kernel // 2).double()
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(3, 4, 8, dtype=torch.float64)
    want = plain(x)
    want.square().sum().backward()
    for given, of in ((x, lambda y: y), (x[:, :, None], lambda y: y[:, :, 0])):
        ours.zero_grad()
        got = of(ours(given))
        torch.testing.assert_close(got, want)
        got.square().sum().backward()
        torch.testing.assert_close(ours.weight.grad, plain.weight.grad)


def test_a_signal_s_weights_keep_their_strides_when_they_are_read_or_cast():
    net, state = build(1), {k: v.contiguous() for k, v in build(1, blocks=1).state_dict().items()}
    net.load_state_dict(state)
    for cast in (net, copy.deepcopy(net), net.double()):
        weight = cast.down[0][0].conv1.weight
        assert weight.stride(1) == 1


@BOTH
def test_fp64_agrees_with_fp32_and_bf16_is_close(dims):
    net, (x, emb) = build(dims, patch=2), inputs(2, 2, *[8] * dims)
    want = net(x, emb)
    with torch.autocast("cpu", torch.bfloat16):
        got = net(x, emb)
        got.float().square().mean().backward()
    assert (got.float() - want).norm() < 0.05 * want.norm()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in net.parameters())
    torch.testing.assert_close(net.double()(x.double(), emb.double()).float(), want, rtol=1e-4, atol=1e-5)


@BOTH
def test_dropout_only_in_training(dims):
    net, (x, emb) = build(dims, dropout=0.5), inputs(2, 2, *[8] * dims)
    assert not torch.equal(net(x, emb), net(x, emb))
    net.eval()
    assert torch.equal(net(x, emb), net(x, emb))


@pytest.mark.parametrize("channels", [1, 3, 4, 8, 20, 48, 64, 96, 128, 192, 1024])
def test_norm_has_groups_of_at_least_four_channels(channels):
    groups = norm(channels).num_groups
    assert groups <= 32
    assert channels % groups == 0
    assert channels // groups >= 4 or groups == 1


# ---- errors


@pytest.mark.parametrize(("dims", "size"), [(1, (7,)), (1, (6,)), (2, (8, 6)), (2, (8, 7)), (1, (0,))])
def test_sizes_that_do_not_divide(dims, size):
    net = build(dims, patch=2)
    with pytest.raises(ShapeError, match="divide by 4") as error:
        net(torch.zeros(1, 2, *size), torch.zeros(1, 12))
    assert str(size) in str(error.value)
    with pytest.raises(ShapeError, match="divide by 4"):
        net.check(size)
    with pytest.raises(ShapeError, match="axes"):
        net.check([8] * (3 - dims))


@BOTH
def test_inputs_of_other_shapes(dims):
    net, (x, emb) = build(dims), inputs(2, 2, *[8] * dims)
    for bad in (x[:, :1], x[0], x[..., None]):
        with pytest.raises(ShapeError, match="U-Net input"):
            net(bad, emb)
    for bad in (emb[:1], emb[:, :4], emb[0]):
        with pytest.raises(ShapeError, match="emb"):
            net(x, bad)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dims": 3}, "dims=3"),
        ({"kernel": 4}, "kernel=4"),
        ({"attention": (True,)}, "1 attention flags"),
        ({"heads": 3}, "heads=3"),
        ({"blocks": 0}, "blocks=0"),
        ({"patch": 0}, "patch=0"),
        ({"multipliers": (), "attention": ()}, "multipliers"),
        ({"dropout": 1.0}, "dropout=1.0"),
    ],
)
def test_options_that_do_not_fit(options, said):
    with pytest.raises(ConfigError, match=said):
        build(**{"dims": 2} | options)
