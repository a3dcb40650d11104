"""Chains of CA alone: the item, its files, the codec, data, and what is refused."""

import numpy as np
import pytest
import torch
from chains import chain
from torch import nn

import zoo
from zoo.contract.recipe import Sampling
from zoo.contract.registry import get_domain
from zoo.core import seeds
from zoo.core.diffusion import Diffusion
from zoo.core.schedule import DiscreteSchedule
from zoo.errors import ConfigError, DataError, ShapeError
from zoo.protein.augment import BackboneAugment
from zoo.protein.backbone import Backbone
from zoo.protein.data import open_chains, read_chains
from zoo.protein.evaluate import Evaluator
from zoo.protein.metrics import MEASURES, measure
from zoo.protein.rigid import rmsd
from zoo.protein.trace import Trace, TraceCodec
from zoo.protein.wishes import gyration, helical, overlap, stranded


class Net(nn.Module):
    """A net of weights that says something of each residue and its neighbours."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv1d(3, 3, 3, padding=1)
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(0.2 * torch.randn(p.shape, generator=seeds.generator(i)))

    def forward(self, x_t, t, cond, *, mask=None):
        x = x_t if mask is None else x_t * mask[:, :, None]
        out = self.mix(torch.sin(x).mT).mT + 0.1 * x
        return out if mask is None else out * mask[:, :, None]


@pytest.fixture
def traces():
    sampling = Sampling(sampler="ddpm", steps=8)
    return zoo.Model.of(Diffusion(DiscreteSchedule("linear", T=40)), Net(), TraceCodec(10, 30, (12, 16)), sampling=sampling)


@pytest.fixture
def trace(helix):
    return Trace(helix.ca, "helix")


# ---- the item ---------------------------------------------------------------------------------------------------------------


def test_measures_are_those_of_a_backbone_that_ca_say(trace, helix):
    found, whole = trace.measures(), measure(helix.atoms)
    assert list(whole) == list(MEASURES)
    assert found.keys() == {"step_error", "ca_clashes", "left_turns", "radius", "contact_order"}
    assert found == {k: whole[k] for k in found} and found["left_turns"] == 0 and found["step_error"] < 0.1
    near = trace.ca.copy()
    near[20] = near[10] + 1.0
    assert Trace(near).measures()["ca_clashes"] > 0 and Trace(near).measures()["step_error"] > 0.1
    with pytest.raises(DataError, match="5 residues is too short"):
        Trace(trace.ca[:5]).measures()


@pytest.mark.parametrize("suffix", [".pdb", ".ent", ".cif"])
def test_files_hold_ca_alone_and_are_read_again(tmp_path, trace, suffix):
    path = trace.save(tmp_path / f"x{suffix}")
    text = path.read_text()
    lines = [line for line in text.splitlines() if line.startswith("ATOM")]
    assert len(lines) == 40 and all("CA" in line and "GLY" in line for line in lines)
    assert "CA only" in text and "step_error" in text
    (again,), rejected = read_chains(path, trace=True)
    assert type(again) is Trace and np.array_equal(again.ca, trace.ca) and again.name == f"x{suffix}:A1-40" and not rejected
    with pytest.raises(DataError, match=r"no residue has N, CA and C \(a CA trace\?\)"):
        read_chains(path)
    assert Trace(trace.ca[:4]).save(tmp_path / f"short{suffix}").is_file()  # too short to measure


def test_what_no_file_holds_is_one_error(tmp_path, trace):
    with pytest.raises(DataError, match=r"a CA trace is saved as \.pdb"):
        trace.save(tmp_path / "x.xyz")
    with pytest.raises(DataError, match=r"Save it as \.cif"):
        Trace(trace.ca + 20_000).save(tmp_path / "x.pdb")
    for wrong, error in (
        (np.zeros((3, 3, 3)), ShapeError),
        (np.zeros((0, 3)), ShapeError),
        (np.full((9, 3), np.nan), DataError),
    ):
        with pytest.raises(error):
            Trace(wrong)
    assert not list(tmp_path.iterdir())


def test_ca_of_whole_files_and_gaps(tmp_path, helix):
    """Of a file of backbones CA alone; where two neighbours are too far apart the chain is broken; calcium is no residue."""
    lines = helix.save(tmp_path / "whole.pdb").read_text().splitlines()
    (one,), _ = read_chains(tmp_path / "whole.pdb", trace=True)
    assert np.array_equal(one.ca, helix.ca)
    ca = [line for line in lines if line[12:16].strip() == "CA"]
    place = "".join(f"{v:8.3f}" for v in helix.ca[-1] + np.array([3.0, 1.0, 0.0]))
    ion = f"HETATM  999 CA    CA A  41    {place}  1.00  0.00          CA  "
    (tmp_path / "trace.pdb").write_text("\n".join([*ca[:33], *ca[36:], ion, "END"]) + "\n")
    (first,), rejected = read_chains(tmp_path / "trace.pdb", trace=True)
    assert len(first) == 33 and "A37-40: an unbroken run of 4 residues" in rejected[0]


def test_pictures(trace):
    assert trace.plot().size == (400, 400)
    html = trace._repr_html_()
    colours = trace.colours()
    assert len(colours) == 39 and colours[0] != colours[-1] and colours[0] in html and "canvas" in html
    assert len(Trace(trace.ca[:1]).colours()) == 0


@pytest.mark.parametrize("call", ["structure", "idealised", "ramachandran"])
def test_what_ca_do_not_say_is_refused(trace, call):
    with pytest.raises(ConfigError, match=f"{call}: a CA trace has no N and no C"):
        getattr(trace, call)()


# ---- the codec --------------------------------------------------------------------------------------------------------------


def test_a_chain_comes_back_around_its_mean(trace, helix):
    codec = TraceCodec(10, 64)
    for item in (trace, helix):
        code = codec.encode(item)
        assert code.shape == (40, 3) and code.dtype == torch.float32 and float(code.mean(0).norm()) < 1e-5
        assert torch.allclose(code + torch.from_numpy(trace.ca.mean(0)), torch.from_numpy(trace.ca), atol=1e-4)
    moved = codec.encode(trace, seeds.generator(0))
    assert not torch.allclose(moved, code) and float(rmsd(moved, code)) < 1e-4  # turned, not mirrored
    (back,) = codec.decode(code[None], {})
    assert type(back) is Trace and np.abs(back.ca - code.numpy()).max() < 1e-3
    assert codec.in_units(code[None]) is not None and codec.free(code) == 117


def test_stacks_are_centred_under_their_mask(helix):
    codec = TraceCodec(10, 64)
    x0, mask = codec.stack([Trace(helix.ca), Trace(helix.ca[:15])])
    assert x0.shape == (2, 40, 3) and mask.sum(1).tolist() == [40, 15] and not x0[1, 15:].any()
    noise = codec.project(torch.randn(2, 40, 3, generator=seeds.generator(0)), mask)
    assert float(noise.sum(1).abs().max()) < 1e-4 and not noise[1, 15:].any()
    assert torch.allclose(codec.project(noise, mask), noise, atol=1e-6)
    assert torch.allclose(codec.project(noise[:1]), noise[:1], atol=1e-6)
    assert codec.stack([Trace(helix.ca)])[1].all()


def test_lengths_are_drawn_asked_for_and_refused(helix):
    codec, rng = TraceCodec(20, 40, (25, 27)), seeds.generator(0)
    assert {codec.sample_size(None, rng) for _ in range(50)} == {25, 26, 27}
    data = zoo.contract.dataset.Items([(Trace(helix.ca[:33]), {})], conditions={}, origin="made")
    codec.fit(data)
    assert {codec.sample_size(None, rng) for _ in range(10)} == {33} and codec.sample_size(40, rng) == 40
    with pytest.warns(UserWarning, match="outside what was trained on"):
        assert codec.sample_size(19, rng) == 19
    for size in (7, 41):
        with pytest.raises(ConfigError, match="8 to 40 residues"):
            codec.sample_size(size, rng)
    for wrong in ((0, 40), (41, 40), (40, 5000), (2, 7), (20, 40, (10, 30)), (20, 40, (30,)), (20, 40, 3)):
        with pytest.raises(ConfigError, match="protein codec"):
            TraceCodec(*wrong)
    with pytest.raises(ConfigError, match="a chain of 33 residues: this codec takes up to 20"):
        TraceCodec(10, 20).fit(data)


# ---- models of traces -------------------------------------------------------------------------------------------------------


def test_a_model_of_traces_is_one_of_proteins(traces, tmp_path):
    assert traces.domain.name == "protein" and traces.recipe.codec["kind"] == "trace"
    samples = traces.sample(3, seed=0, length=[12, 30, 10])
    assert [len(s) for s in samples] == [12, 30, 10] and all(type(s) is Trace for s in samples)
    assert all(np.abs(s.ca.mean(0)).max() < 1e-3 for s in samples)
    samples.save(tmp_path / "out")
    samples.plot(tmp_path / "out" / "all.png")
    assert traces.domain.view(samples)[0] is not None and traces.domain.edits(traces.recipe) == {}
    traces.save_pretrained(tmp_path / "mine")
    again = zoo.load(tmp_path / "mine", net=Net())
    assert type(again.codec) is TraceCodec and (again.sample(1, seed=0, length=12)[0].ca == samples[0].ca).all()
    read = traces.domain.read(Trace(chain(14)[:, 1]).save(tmp_path / "x.pdb"), traces.recipe)
    assert type(read) is Trace and len(traces.vary(read, 0.2, seed=0)[0]) == 14
    where = torch.zeros(14, 1, dtype=torch.bool)
    where[3:9] = True
    held = traces.inpaint(read, where, seed=1, method="replace")[0]
    assert float(rmsd(torch.from_numpy(held.ca[3:9]), torch.from_numpy(read.ca[3:9]))) < 2e-3
    assert traces.log_likelihood([read], steps=4).unit == "angstrom"


def test_steers_see_ca(traces, helix):
    ca, atoms = torch.from_numpy(helix.ca)[None], torch.from_numpy(helix.atoms)[None]
    for what in (gyration, helical, stranded):
        assert torch.equal(what(ca), what(atoms))
    assert float(overlap(ca)) == 0 and float(overlap(ca * 0.5)) > 1
    free, tight = (traces.sample(2, seed=1, length=20, steer=steer) for steer in ((), zoo.protein.radius(6.0)))
    sizes = [[abs(gyration(torch.from_numpy(s.ca)[None]).item() - 6) for s in samples] for samples in (free, tight)]
    assert sum(sizes[1]) < 0.8 * sum(sizes[0])
    (freed,) = traces.sample(1, seed=1, length=20, steer=zoo.protein.clash(weight=0.1))
    (plain,) = traces.sample(1, seed=1, length=20)
    assert float(overlap(torch.from_numpy(freed.ca)[None])) < float(overlap(torch.from_numpy(plain.ca)[None]))
    apart = zoo.protein.contact(2, 15, distance=8.0).operator
    assert torch.equal(apart(ca), apart(atoms)) and float(apart(ca)) == pytest.approx(
        np.linalg.norm(helix.ca[1] - helix.ca[14])
    )
    traces.sample(1, seed=1, length=20, steer=[zoo.protein.contact(2, 15), zoo.protein.helices(0.4)])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m, x: m.inpaint(motif=x, length=20), "motif: a CA trace has no N and no C"),
        (lambda m, x: m.sample(1, length=24, steer=zoo.protein.symmetry("C2")), "symmetry: this model makes CA alone"),
        (lambda m, x: zoo.evaluate(m, n=2, data="none"), "evaluation: a CA trace has no N and no C"),
        (lambda m, x: m.domain.edited(m, x, {}), "motif: a CA trace has no N and no C"),
    ],
)
def test_what_needs_whole_residues_is_refused(traces, call, said):
    with pytest.raises(ConfigError, match=said):
        call(traces, Backbone(chain(12)))


def test_a_trace_is_refused_where_backbones_are_taken(model, traces, trace):
    for call in (
        lambda: model.vary(trace, 0.2, seed=0),
        lambda: Evaluator([chain(40)], [chain(40)]).measure(traces.sample(1, seed=0, length=12)),
    ):
        with pytest.raises(ConfigError, match="a CA trace has no N and no C"):
            call()
    with pytest.raises(ConfigError, match="give a Backbone"):
        model.inpaint(motif=trace, length=60)


# ---- data -------------------------------------------------------------------------------------------------------------------


def test_folders_are_read_as_the_recipe_asks(tmp_path, helix, traces):
    for split in ("train", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for i, size in enumerate((12, 20, 30)):
            item = Trace(helix.ca[:size]) if i % 2 else Backbone(helix.atoms[:size])
            item.save(tmp_path / "data" / split / f"{i}.pdb")
    options = traces.domain.data_options(traces.recipe)
    assert options == {"min_length": 10, "max_length": 30, "trace": True}
    found = [open_chains(tmp_path / "data", split, **options) for split in ("train", "test")]
    items = [data[i][0] for data in found for i in range(len(data))]
    assert len(items) == 6 and all(type(item) is Trace for item in items)
    moved, _ = BackboneAugment(noise=0.1).apply(items[0], {}, seeds.generator(0), traces.codec)
    assert type(moved) is Trace and 0 < np.abs(moved.ca - items[0].ca).max() < 1
    assert get_domain("protein").data_options(zoo.create("protein/backbone-ddpm").recipe) == {
        "min_length": 32,
        "max_length": 128,
    }


@pytest.mark.data
def test_collected_chains_are_traces(data_file):
    whole, alone = (open_chains(data_file, "test", trace=trace) for trace in (False, True))
    assert len(whole) == len(alone) and np.array_equal(whole[0][0].ca, alone[0][0].ca) and type(alone[0][0]) is Trace
