"""Checkpoints of DiT: random ones in the layout of its authors, computed as they publish it, and by ours once converted."""

import math

import convert_dit
import convert_pickle
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from interop_goldens import autoencoder
from torch import nn

import zoo
from zoo.contract.conditions import Label
from zoo.core import seeds
from zoo.core.schedule import Level
from zoo.errors import CheckpointError, ConfigError, ShapeError
from zoo.interop.dit import DiT

WIDTH, DEPTH, HEADS, PATCH, SIDE, LABELS = 24, 2, 3, 2, 8, 5


def grid(width, side):
    """The positions as their numpy says it: the place across comes first."""
    across, down = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))

    def line(places):
        omega = 1.0 / 10000 ** (np.arange(width // 4, dtype=np.float64) / (width / 4))
        out = np.einsum("m,d->md", places.reshape(-1), omega)
        return np.concatenate([np.sin(out), np.cos(out)], axis=1)

    return torch.from_numpy(np.concatenate([line(across), line(down)], axis=1)).float()[None]


def checkpoint(channels=4, seed=0, variance=True):
    """A state by the names of the authors' net, random, none of it zero."""
    rng, out = seeds.generator(seed), PATCH**2 * channels * (2 if variance else 1)
    shapes = {
        "x_embedder.proj.weight": (WIDTH, channels, PATCH, PATCH), "x_embedder.proj.bias": (WIDTH,),
        "t_embedder.mlp.0.weight": (WIDTH, 256), "t_embedder.mlp.0.bias": (WIDTH,),
        "t_embedder.mlp.2.weight": (WIDTH, WIDTH), "t_embedder.mlp.2.bias": (WIDTH,),
        "y_embedder.embedding_table.weight": (LABELS + 1, WIDTH),
        "final_layer.linear.weight": (out, WIDTH), "final_layer.linear.bias": (out,),
        "final_layer.adaLN_modulation.1.weight": (2 * WIDTH, WIDTH), "final_layer.adaLN_modulation.1.bias": (2 * WIDTH,),
    }  # fmt: skip
    for i in range(DEPTH):
        for name, (a, b) in {
            "attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH), "mlp.fc1": (4 * WIDTH, WIDTH),
            "mlp.fc2": (WIDTH, 4 * WIDTH), "adaLN_modulation.1": (6 * WIDTH, WIDTH),
        }.items():  # fmt: skip
            shapes |= {f"blocks.{i}.{name}.weight": (a, b), f"blocks.{i}.{name}.bias": (a,)}
    found = {k: torch.randn(s, generator=rng) / math.sqrt(s[-1]) for k, s in shapes.items()}
    return found | {"pos_embed": grid(WIDTH, SIDE // PATCH)}


def reference(state, x, t, y):
    """The net as its authors' file computes it, from a state alone."""

    def linear(x, name):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x):
        return F.layer_norm(x, (WIDTH,), eps=1e-6)

    def modulate(x, shift, scale):
        return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)

    x = F.conv2d(x, state["x_embedder.proj.weight"], state["x_embedder.proj.bias"], stride=PATCH).flatten(2).transpose(1, 2)
    x = x + state["pos_embed"]
    freqs = torch.exp(-math.log(10000) * torch.arange(0, 128, dtype=torch.float32) / 128)
    args = t[:, None].float() * freqs[None]
    c = linear(F.silu(linear(torch.cat([args.cos(), args.sin()], -1), "t_embedder.mlp.0")), "t_embedder.mlp.2")
    c = c + state["y_embedder.embedding_table.weight"][y]
    for i in range(DEPTH):
        block = f"blocks.{i}"
        s1, c1, g1, s2, c2, g2 = linear(F.silu(c), f"{block}.adaLN_modulation.1").chunk(6, dim=1)
        h = modulate(norm(x), s1, c1)
        n, length, _ = h.shape
        q, k, v = linear(h, f"{block}.attn.qkv").reshape(n, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        attention = ((q * (WIDTH // HEADS) ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        x = x + g1.unsqueeze(1) * linear(attention.transpose(1, 2).reshape(n, length, WIDTH), f"{block}.attn.proj")
        h = F.gelu(linear(modulate(norm(x), s2, c2), f"{block}.mlp.fc1"), approximate="tanh")
        x = x + g2.unsqueeze(1) * linear(h, f"{block}.mlp.fc2")
    shift, scale = linear(F.silu(c), "final_layer.adaLN_modulation.1").chunk(2, dim=1)
    x = linear(modulate(norm(x), shift, scale), "final_layer.linear")
    side, out = SIDE // PATCH, x.shape[-1] // PATCH**2
    x = torch.einsum("nhwpqc->nchpwq", x.reshape(len(x), side, side, PATCH, PATCH, out))
    return x.reshape(len(x), out, SIDE, SIDE)


@pytest.fixture
def vae(tmp_path):
    pytest.importorskip("diffusers")
    return autoencoder(tmp_path / "vae", size=64)


@pytest.mark.parametrize("variance", [True, False])
def test_a_converted_checkpoint_computes_what_its_authors_net_does(tmp_path, vae, variance, capsys):
    state = checkpoint(variance=variance)
    torch.save({"ema": state, "model": checkpoint(seed=1)} if variance else state, tmp_path / "DiT-tiny.pt")
    arguments = [str(tmp_path / "DiT-tiny.pt"), str(tmp_path / "mine"), "--vae", str(vae), "--heads", str(HEADS)]
    assert convert_dit.main(arguments) == 0
    model = zoo.load(tmp_path / "mine")
    assert model.recipe.name == "DiT-tiny" and model.codec.shape == (4, SIDE, SIDE)
    assert model.codec.inner.shape == (3, 16, 16) and float(model.codec.deviation.mean()) == 2.0
    x, t, y = (
        torch.randn(3, 4, SIDE, SIDE, generator=seeds.generator(2)),
        torch.tensor([0, 500, 999]),
        torch.tensor([0, 4, LABELS]),
    )
    expected = reference(state, x, t, y)[:, :4]
    with torch.no_grad():
        found = model.diffusion.ask(model.denoiser, x, t.float(), {"label": torch.tensor([0, 4, -1])})
        bare = model.diffusion.ask(model.denoiser, x[2:], t[2:].float(), {})
        _, share = model.diffusion.denoise_both(
            model.denoiser, x, Level(t.double(), 1.0, 1.0), {"label": torch.tensor([0, 4, -1])}
        )
    assert float(expected.std()) > 0.1 and float((found - expected).abs().max()) < 1e-5
    assert float((bare - expected[2:]).abs().max()) < 1e-5
    assert model.diffusion.learned_variance == variance == (share is not None)
    if share is not None:
        assert float((2 * share - 1 - reference(state, x, t, y)[:, 4:]).abs().max()) < 1e-5
        model.sample(1, label=1, sampler="ddpm", variance="learned", steps=2, seed=0)
    assert model.verify() == 0 and model.sample(2, label=[1, "3"], steps=2, seed=0)[0].pixels.shape == (16, 16, 3)


class Trap:
    def __reduce__(self):
        return (print, ("run",))


def test_what_is_no_checkpoint_of_dit_is_one_error(tmp_path, vae, capsys):
    state = checkpoint()
    cases = [
        ({"ema": nn.Linear(2, 2).state_dict()}, "is no checkpoint of DiT or SiT: it has no x_embedder"),
        (3, "holds no state of a net"),
        ({"ema": state, "args": Trap()}, "weights-only loader refuses it"),
        (state | {"pos_embed": state["pos_embed"] + 0.1}, "are not the sines and cosines"),
        ({k: v for k, v in state.items() if k != "pos_embed"}, "has no pos_embed"),
        (state | {"pos_embed": state["pos_embed"][:, :15]}, "shapes that no DiT has"),
        (state | {"wobble": torch.zeros(2)}, "unexpected wobble"),
        ({k: v for k, v in state.items() if k != "blocks.1.mlp.fc2.bias"}, "missing blocks.1.mlp.fc2.bias"),
        (checkpoint(channels=3), "no autoencoder with latents of 3 channels"),
    ]
    path = tmp_path / "a.pt"
    for held, said in cases:
        torch.save(held, path)
        with pytest.raises(CheckpointError) as error:
            convert_dit.convert(path, tmp_path / "mine", vae, HEADS)
        assert said in str(error.value)
    assert "run" not in capsys.readouterr().out
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="say the heads"):
        convert_dit.convert(path, tmp_path / "mine", vae)
    arguments = [str(tmp_path / "none.pt"), str(tmp_path / "mine"), "--vae", str(vae)]
    assert convert_dit.main(arguments) == convert_pickle.main(["dit", *arguments]) == 1
    assert not (tmp_path / "mine").exists()


def test_zoo_opens_no_pt_and_says_what_does(tmp_path):
    torch.save(checkpoint(), tmp_path / "DiT-XL-2-256x256.pt")
    for source, further in ((tmp_path / "DiT-XL-2-256x256.pt", {}), (str(tmp_path / "DiT-XL-2-256x256.pt"), {"format": "dit"})):
        with pytest.raises(CheckpointError, match=r"is a pickle, which can run code.*benchmarks/convert_dit\.py"):
            zoo.load(source, **further)


def test_a_net_of_numbers_that_do_not_fit(tmp_path):
    label = {"label": Label(values=("a", "b"))}
    with pytest.raises(ConfigError, match="divides by 4 and by the heads"):
        DiT((4, 8, 8), label, width=10)
    with pytest.raises(ConfigError, match='needs the condition "label" alone'):
        DiT((4, 8, 8), width=8, heads=2)
    with pytest.raises(ShapeError, match="samples of 9 x 9"):
        DiT((4, 9, 9), label, width=8, heads=2)
