"""Backbones as six angles a residue: the codec, and models of it."""

import math
import warnings

import pytest
import torch
from chains import chain
from torch import nn

import zoo
from zoo.contract.dataset import Items
from zoo.contract.recipe import Sampling
from zoo.core import seeds
from zoo.core.diffusion import Diffusion
from zoo.core.schedule import DiscreteSchedule
from zoo.errors import ConfigError
from zoo.protein.angles import ANGLES, BONDS, FIRST, TURN, AngleCodec, angles_of
from zoo.protein.backbone import Backbone
from zoo.protein.geometry import grown
from zoo.protein.rigid import superpose
from zoo.protein.wishes import gyration
from zoo.training.objective import Denoise

FIRST_RESIDUE = torch.tensor(FIRST, dtype=torch.float64)
#: angles of a protein, in radians
USUAL = torch.tensor([-1.2, -0.7, 3.1, 1.94, 2.03, 2.12], dtype=torch.float64)


def drawn(*sizes, seed=0, spread=0.2):
    return USUAL + spread * torch.randn(*sizes, 6, generator=seeds.generator(seed), dtype=torch.float64)


def apart(a, b):
    """The largest difference of angles."""
    return float((a - b).sin().abs().nan_to_num(0).max() + (1 - (a - b).cos()).nan_to_num(0).max())


class Net(nn.Module):
    """A net of weights that says something of each angle and its neighbours; it remembers what it saw."""

    def __init__(self):
        super().__init__()
        self.mix, self.seen = nn.Conv1d(6, 6, 3, padding=1), []
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(0.2 * torch.randn(p.shape, generator=seeds.generator(i)))

    def forward(self, x_t, t, cond, *, mask=None):
        self.seen.append(x_t.detach())
        x = x_t if mask is None else x_t * mask[:, :, None]
        out = self.mix(torch.sin(x).mT).mT + 0.9 * x
        return out if mask is None else out * mask[:, :, None]


@pytest.fixture
def model():
    codec = AngleCodec(10, 30, (12, 16))
    codec.mean.copy_(USUAL)
    return zoo.Model.of(Diffusion(DiscreteSchedule("linear", T=40)), Net(), codec, sampling=Sampling(sampler="ddpm", steps=8))


# ---- geometry ---------------------------------------------------------------------------------------------------------------


def test_angles_are_biopythons():
    """Rows as FoldingDiff has them: residue i holds what places residue i + 1, but for its own phi."""
    from Bio.PDB.vectors import Vector, calc_angle, calc_dihedral

    x = torch.from_numpy(chain(7, -75.0, 140.0, seed=1))
    found, (n, ca, c) = angles_of(x), ([Vector(*a) for a in x[:, k].tolist()] for k in range(3))
    for i in range(len(x)):
        phi = calc_dihedral(c[i - 1], n[i], ca[i], c[i]) if i else math.nan
        last = [math.nan] * 5
        if i + 1 < len(x):
            last = [
                calc_dihedral(n[i], ca[i], c[i], n[i + 1]),
                calc_dihedral(ca[i], c[i], n[i + 1], ca[i + 1]),
                calc_angle(n[i + 1], ca[i + 1], c[i + 1]),
                calc_angle(ca[i], c[i], n[i + 1]),
                calc_angle(c[i], n[i + 1], ca[i + 1]),
            ]
        assert found[i].tolist() == pytest.approx([phi, *last], abs=1e-6, nan_ok=True)
    assert len(ANGLES) == found.shape[1]


def test_a_chain_has_the_angles_that_it_was_grown_from():
    angles = drawn(3, 12, spread=0.7)
    angles[..., 3:] = angles[..., 3:].abs().clamp(0.1, 3.0)  # a bond has no angle below 0
    x = grown(angles, BONDS, FIRST_RESIDUE)
    assert x.shape == (3, 12, 3, 3) and torch.equal(x[:, 0], FIRST_RESIDUE.expand(3, 3, 3))
    found = angles_of(x)
    assert apart(found, angles) < 1e-9 and int(found.isnan().sum()) == 3 * 6
    bonds = [(x[:, :, 1] - x[:, :, 0]), (x[:, :, 2] - x[:, :, 1]), (x[:, 1:, 0] - x[:, :-1, 2])]
    for bond, length in zip(bonds, BONDS, strict=True):
        own = bond.norm(dim=-1) if bond.shape[1] == 11 else bond.norm(dim=-1)[:, 1:]
        assert torch.allclose(own, torch.full_like(own, length))
    assert grown(angles[:, :1], BONDS, FIRST_RESIDUE).shape == (3, 1, 3, 3)


# ---- the codec --------------------------------------------------------------------------------------------------------------


def test_a_chain_comes_back_in_another_pose():
    codec = AngleCodec(10, 64)
    codec.mean.copy_(USUAL)
    x = grown(drawn(1, 40), BONDS, FIRST_RESIDUE)[0]
    turned = Backbone((x @ torch.linalg.qr(torch.randn(3, 3, generator=seeds.generator(1), dtype=torch.float64))[0]).numpy())
    for item in (Backbone(x.numpy()), turned):
        code = codec.encode(item)
        assert code.shape == (40, 6) and code.dtype == torch.float32 and torch.isfinite(code).all()
        assert code[0, 0] == 0 and code[-1, 1:].tolist() == [0] * 5  # there is no such angle
        (back,) = codec.decode(code[None], {})
        truth, found = torch.from_numpy(item.atoms).flatten(0, 1).double(), torch.from_numpy(back.atoms).flatten(0, 1).double()
        off = float((superpose(found[3:], truth[3:]) - truth[3:]).norm(dim=1).max())
        mirrored = bool(torch.linalg.det(torch.linalg.lstsq(x.flatten(0, 1), truth).solution) < 0)
        assert off < 0.03, (off, mirrored)  # files have three decimals, and their errors turn all that follows
        assert abs(float(found.mean(0).norm())) < 1e-3


def test_mean_angles_are_those_of_directions():
    codec, items = AngleCodec(2, 20), []
    for i, omega in enumerate((math.pi - 0.1, -math.pi + 0.3, math.pi - 0.2)):
        angles = USUAL.repeat(10 + i, 1)
        angles[:, 2] = omega
        items.append((Backbone(grown(angles, BONDS, FIRST_RESIDUE).numpy()), {}))
    codec.fit(Items(items, conditions={}, origin="made"))
    assert codec.lengths.nonzero().flatten().tolist() == [10, 11, 12]
    # a mean of angles as numbers would be near 1
    assert abs(abs(float(codec.mean[2])) - math.pi) < 0.1
    assert torch.allclose(codec.mean[[0, 1, 3]], USUAL[[0, 1, 3]].float(), atol=2e-3)
    code = codec.encode(items[1][0])
    assert float(code.abs().max()) < 0.6  # -pi + 0.3 is near pi
    other = AngleCodec(2, 20)
    assert other.continued(codec) == ["mean"] and torch.equal(other.mean, codec.mean) and not other.lengths.any()
    with pytest.raises(ConfigError, match="a chain of 11 residues: this codec takes up to 10"):
        AngleCodec(2, 10).fit(Items(items, conditions={}, origin="made"))


def test_lengths_are_drawn_asked_for_and_refused():
    codec, rng = AngleCodec(20, 40, (25, 27)), seeds.generator(0)
    assert {codec.sample_size(None, rng) for _ in range(50)} == {25, 26, 27}
    codec.lengths[33] = 2
    assert {codec.sample_size(None, rng) for _ in range(10)} == {33}
    assert codec.sample_size(40, rng) == 40
    with pytest.warns(UserWarning, match="outside what was trained on"):
        assert codec.sample_size(19, rng) == 19
    for size in (7, 41):
        with pytest.raises(ConfigError, match="8 to 40 residues"):
            codec.sample_size(size, rng)
    for wrong in ((0, 40), (41, 40), (40, 5000), (2, 7), (20, 40, (10, 30)), (20, 40, (30, 41)), (20, 40, (30,)), (20, 40, 3)):
        with pytest.raises(ConfigError, match="protein codec"):
            AngleCodec(*wrong)


def test_coordinates_have_gradients():
    codec = AngleCodec(10, 64)
    codec.mean.copy_(USUAL)
    x0 = (drawn(2, 20) - USUAL).float().requires_grad_()
    atoms = codec.in_units(x0)
    for row, item in zip(atoms, codec.decode(x0, {}), strict=True):
        centred = row - row.mean((0, 1))
        assert float((centred.detach() - torch.from_numpy(item.atoms)).abs().max()) < 2e-3
    (slope,) = torch.autograd.grad((atoms[:, -1, 1] - atoms[:, 0, 1]).norm(dim=1).sum(), x0)
    assert torch.isfinite(slope).all() and float(slope[:, 1:-1].abs().min(1).values.max()) > 1e-3
    assert float(slope[:, 0, 0].abs().max()) == 0  # no atom hangs on the first phi


# ---- models of angles -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"sampler": "ddim", "eta": 0.5}, {"sampler": "euler", "s_churn": 4.0}, {"variance": "large"}]
)
@pytest.mark.filterwarnings("ignore:variance='large'")
def test_states_stay_within_a_turn(model, settings):
    seen: list[float] = []
    samples = model.sample(3, seed=0, length=[12, 30, 10], on_step=lambda s: seen.append(float(s.x.abs().max())), **settings)
    assert [len(s) for s in samples] == [12, 30, 10]
    assert len(seen) == 8 and max(seen) <= math.pi + 1e-6
    # the net sees no more than a turn either, from the first state on
    assert max(float(x.abs().max()) for x in model.denoiser.seen) <= math.pi + 1e-6
    own = model.sample(1, seed=0, length=12, **settings)
    assert abs(own[0].atoms - samples[0].atoms).max() < 2e-3  # whatever it was padded to


def test_noise_beyond_a_turn_is_wrapped_first(model):
    noise = torch.randn(1, 12, 6, generator=seeds.generator(4))
    first, second = (model.sample(1, seed=0, length=12, noise=x)[0] for x in (noise, noise + TURN))
    assert abs(first.atoms - second.atoms).max() < 2e-2
    assert max(float(x.abs().max()) for x in model.denoiser.seen) <= math.pi + 1e-6


def test_a_model_of_angles_is_one_of_proteins(model, tmp_path):
    assert model.domain.name == "protein" and model.recipe.codec["kind"] == "angles"
    sample = model.sample(1, seed=0)[0]
    assert 12 <= len(sample) <= 16
    assert "ATOM" in sample.save(tmp_path / "x.pdb").read_text()
    assert angles_of(torch.from_numpy(sample.atoms)).shape == (len(sample), 6)
    model.save_pretrained(tmp_path / "mine")
    again = zoo.load(tmp_path / "mine", net=Net())
    assert type(again.codec) is AngleCodec and torch.equal(again.codec.mean, model.codec.mean)
    assert (again.sample(1, seed=0)[0].atoms == sample.atoms).all()
    # one residue is held
    where = torch.zeros(len(sample), 1, dtype=torch.bool)
    where[3] = True
    held = model.inpaint(sample, where, seed=1, method="replace")[0]
    assert apart(angles_of(torch.from_numpy(held.atoms))[3], angles_of(torch.from_numpy(sample.atoms))[3]) < 5e-3
    # steers see coordinates in angstrom
    free, tight = (model.sample(2, seed=1, length=20, steer=steer) for steer in ((), zoo.protein.radius(6.0)))
    sizes = [[abs(gyration(torch.from_numpy(s.atoms)[None]).item() - 6) for s in samples] for samples in (free, tight)]
    assert sum(sizes[1]) < 0.8 * sum(sizes[0])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m, x: m.sample(1, sampler="dpmpp"), "sampler='dpmpp': samples of this model are angles"),
        (lambda m, x: m.sample(1, sampler="heun"), "Take one of: ddpm, ddim, euler"),
        (lambda m, x: m.invert([x], steps=10), "invert: samples of .* are angles"),
        (lambda m, x: m.vary(x, inverted=True), "are angles"),
        (lambda m, x: m.log_likelihood([x], units="encoded"), "log_likelihood: samples of .* are angles"),
        (lambda m, x: m.inpaint(motif=x, length=20), "motif: this model makes angles"),
        (lambda m, x: m.sample(1, length=24, steer=zoo.protein.symmetry("C2")), "symmetry: this model makes angles"),
        (
            lambda m, x: m.inpaint(x, torch.arange(len(x))[:, None] < 3, method="particles", particles=2),
            "method='particles': samples of .* are angles",
        ),
    ],
)
def test_what_needs_more_than_angles_is_refused(model, call, said):
    with pytest.raises(ConfigError, match=said):
        call(model, Backbone(chain(12)))


def test_training_shows_the_net_no_more_than_a_turn(model):
    x = torch.full((6, 12, 6), 3.0)
    items = [(Backbone(chain(12)), {})] * 6
    batch = model.batch(items)
    batch = type(batch)(x, batch.cond, None)
    loss = Denoise().loss(model, batch, seeds.generator(0))
    (seen,) = model.denoiser.seen
    assert torch.isfinite(loss) and float(seen.abs().max()) <= math.pi + 1e-6 and float(seen.min()) < -2


def test_codecs_of_another_kind_are_refused():
    recipe = zoo.contract.registry.get_recipe("protein/backbone-ddpm")
    with pytest.raises(ConfigError, match=r"unknown protein codec kind 'angels'\. Did you mean 'angles'"):
        zoo.create("protein/backbone-ddpm", **{"codec.kind": "angels"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        domain = zoo.contract.registry.get_domain("protein")
        assert domain.codec({**recipe.codec, "kind": "atoms"}).shape == domain.codec(recipe.codec).shape
    with pytest.raises(ConfigError, match="unknown protein codec option 'wobble'"):
        domain.codec({"kind": "angles", "wobble": 1})
