"""`model.sample` and its relatives: arguments, seeds, memory, in-painting."""

import math
import resource

import pytest
import torch

import zoo
from zoo.contract.dataset import Batch
from zoo.core import seeds
from zoo.core.guidance import Guidance
from zoo.core.predict import Network, assemble
from zoo.core.samplers import ddim
from zoo.errors import ConfigError, NumericsError, ResourceError, ShapeError
from zoo.image.codec import ImageSample
from zoo.training.objective import Denoise

SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}
QUICK = {"steps": 2, "progress": False}


def build(**overrides):
    model = zoo.create("image/fashion-ddpm", **SMALL | overrides)
    with torch.no_grad():
        for i, p in enumerate(model.denoiser.parameters()):
            p += 0.05 * torch.randn(p.shape, generator=seeds.generator(i))
    return model


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def free():
    return build(conditions={})


WRONG = [
    ({"n": 0}, "n=0: give a whole number of at least 1"),
    ({"n": -3}, "n=-3"),
    ({"n": 2.5}, "n=2.5"),
    ({"n": True}, "n=True"),
    ({"batch_size": 0}, "batch_size=0"),
    ({"steps": 0}, "steps=0: give a whole number from 1 to 1000"),
    ({"steps": 1001}, "steps=1001: give a whole number from 1 to 1000"),
    ({"steps": 2.0}, "steps=2.0"),
    ({"label": "sneakers"}, "sneaker"),
    ({"label": 10}, "t-shirt, trouser"),
    ({"label": ["bag", "coat"]}, "label: 2 values for n=1"),
    ({"sampler": "leapfrog"}, "ddim"),
    ({"spacing": "cubic"}, "trailing"),
    ({"guidance_weight": 1.0, "guidance_scale": 2.0}, "two forms of one number"),
    ({"guidance_weight": math.nan}, "guidance_weight=nan"),
    ({"guidance_interval": (3.0, 1.0)}, "0 <= low < high"),
    ({"guidance_rescale": 2.0}, "from 0 to 1"),
    ({"clip": 0.0}, "clip"),
    ({"clip": 1e300}, "clip=1e+300: give a finite number"),
    ({"guidance_weight": 1e300}, "guidance_weight=1e+300"),
    ({"colour": "red"}, "colour"),
    ({"eta": 0.5, "sampler": "dpmpp"}, "eta"),
    ({"eta": -1.0, "sampler": "ddim"}, "eta"),
    ({"seed": 1.5}, "seed"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_a_wrong_argument_is_one_clear_error(model, arguments, message):
    with pytest.raises(ConfigError) as caught:
        model.sample(**{"n": 1, "progress": False} | arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("form", "none"), [("guidance_weight", 0.0), ("guidance_scale", 1.0)])
def test_guidance_needs_a_condition(free, form, none):
    """But none at all is what an unconditional model does anyway, as the settings of its plans say."""
    with pytest.raises(ConfigError, match="unconditional"):
        free.sample(1, **{form: none + 1}, **QUICK)
    plain = free.sample(1, **QUICK, seed=0)
    assert torch.equal(free.sample(1, **QUICK | {form: none}, seed=0).tensor, plain.tensor)
    assert torch.equal(free.sample(1, **QUICK | plain.plan.settings(), seed=0).tensor, plain.tensor)


def test_weight_and_scale_are_one_number(model):
    settings = QUICK | {"label": "bag", "seed": 0, "spacing": "trailing"}
    a = model.sample(2, guidance_weight=1.5, guidance_interval=(0, 1e9), **settings).tensor
    assert torch.equal(a, model.sample(2, guidance_scale=2.5, guidance_interval=(0, 1e9), **settings).tensor)
    assert not torch.equal(a, model.sample(2, guidance_weight=0.0, **settings).tensor)


def test_a_label_may_be_a_name_a_number_a_list_or_free(model):
    named = model.sample(2, label="sneaker", seed=0, **QUICK)
    assert named.conditions == {"label": ["sneaker", "sneaker"]}
    assert torch.equal(named.tensor, model.sample(2, label=7, seed=0, **QUICK).tensor)
    mixed = model.sample(2, label=["sneaker", "bag"], seed=0, **QUICK)
    assert torch.equal(mixed.tensor[0], named.tensor[0]) and not torch.equal(mixed.tensor[1], named.tensor[1])
    assert model.sample(2, seed=0, **QUICK).conditions == {"label": [None, None]}
    assert not torch.equal(model.sample(2, seed=0, **QUICK).tensor, named.tensor)


TWO = {
    "label": {"values": ["a", "b", "c"]},
    "speaker": {"values": ["x", "y", "z"], "free": "draw"},
}


def test_a_free_condition_may_be_drawn_by_each_sample():
    model = build(conditions=TWO)
    names = model.sample(40, seed=3, **QUICK).conditions
    assert names["label"] == [None] * 40 and set(names["speaker"]) == {"x", "y", "z"}
    assert model.sample(7, seed=3, batch_size=2, **QUICK).conditions["speaker"] == names["speaker"][:7]
    assert model.sample(40, seed=4, **QUICK).conditions["speaker"] != names["speaker"]
    assert model.sample(3, seed=3, speaker=["z", None, 0], **QUICK).conditions["speaker"] == ["z", names["speaker"][1], "x"]
    drawn = model.sample(2, seed=3, label="a", **QUICK)
    asked = model.sample(2, seed=3, label="a", speaker=names["speaker"][:2], **QUICK)
    assert torch.equal(drawn.tensor, asked.tensor), "a drawn value is as one that was asked for"


def test_conditions_are_guided_together_or_apart():
    model = build(conditions=TWO, **{"sampling.guidance_interval": None})
    asked = QUICK | {"label": "a", "speaker": "y", "seed": 0}
    plain, both = (model.sample(1, guidance_weight=w, **asked).tensor for w in (0.0, 2.0))
    label = model.sample(1, guidance_weight={"label": 2.0}, **asked).tensor
    assert not torch.equal(plain, both) and not torch.equal(plain, label) and not torch.equal(both, label)
    assert torch.equal(label, model.sample(1, guidance_scale={"label": 3.0}, **asked).tensor)
    assert torch.equal(plain, model.sample(1, guidance_weight={"label": 0.0, "speaker": 0.0}, **asked).tensor)
    with pytest.raises(ConfigError, match="speaker"):
        model.sample(1, guidance_weight={"speakers": 1.0}, **asked)


def test_each_of_several_conditions_is_also_left_out_alone(monkeypatch):
    model = build(conditions=TWO, **{"training.single_dropout": 0.3, "training.condition_dropout": 0.2})
    seen = {}

    def forward(x, t, cond, *, mask=None):
        seen.update(cond)
        return x

    monkeypatch.setattr(model.denoiser, "forward", forward)
    n = 4000
    cond = {"label": torch.full((n,), 1), "speaker": torch.full((n,), 2)}
    Denoise().loss(model, Batch(torch.zeros(n, 1, 28, 28), cond), seeds.generator(0))
    label, speaker = seen["label"] < 0, seen["speaker"] < 0
    assert (cond["label"] == 1).all(), "the caller's own tensors are left alone"
    for share, expected in ((label, 0.44), (speaker, 0.44), (label & speaker, 0.2 + 0.8 * 0.09)):
        assert share.double().mean().item() == pytest.approx(expected, abs=0.03)
    Denoise(dropout=False).loss(model, Batch(torch.zeros(n, 1, 28, 28), cond), seeds.generator(0))
    assert (seen["label"] == 1).all() and (seen["speaker"] == 2).all()
    model = build(**{"training.condition_dropout": 0.2})
    monkeypatch.setattr(model.denoiser, "forward", forward)
    Denoise().loss(model, Batch(torch.zeros(n, 1, 28, 28), {"label": cond["label"]}), seeds.generator(0))
    share = (seen["label"] < 0).double().mean().item()
    assert share == pytest.approx(0.2, abs=0.03), "a single condition is left out by the common rate alone"


def test_the_seed_rules(model):
    assert torch.equal(model.sample(3, seed=4, **QUICK).tensor, model.sample(3, seed=4, **QUICK).tensor)
    assert not torch.equal(model.sample(3, **QUICK).tensor, model.sample(3, **QUICK).tensor), "no seed: a fresh one"
    torch.manual_seed(0)
    before = torch.get_rng_state()
    model.sample(1, **QUICK)
    assert torch.equal(before, torch.get_rng_state()), "sampling leaves the caller's generator alone"


def test_sampling_leaves_the_model_alone(model):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.sample(2, seed=0, **QUICK)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp", "plms", "heun", "euler"])
@pytest.mark.parametrize("schedule", [{"kind": k} for k in ("discrete", "edm", "flow", "cosine")], ids=str)
def test_every_sampler_on_every_schedule(sampler, schedule):
    model = build(schedule=schedule)
    for steps in (1, 3):
        samples = model.sample(2, sampler=sampler, steps=steps, seed=0, label="bag", progress=False)
        assert torch.isfinite(samples.tensor).all() and samples.tensor.abs().max() <= 1


def test_on_step_sees_every_step_and_iteration_gives_the_same(model):
    seen = []
    samples = model.sample(3, seed=0, batch_size=2, steps=4, on_step=seen.append, progress=False)
    assert [len(s.x) for s in seen] == [2] * 4 + [1] * 4
    last = list(model.sample_iter(3, seed=0, steps=4))[-1]
    decoded = torch.stack([torch.from_numpy(s.numpy()) for s in model.codec.decode(last.x, {})])
    torch.testing.assert_close(decoded, samples.tensor, atol=0.01, rtol=0)
    assert list(last.x0.shape) == [3, 1, 28, 28]


def test_inpainting_keeps_what_is_known(model):
    known = ImageSample(torch.randint(0, 256, (28, 28), generator=seeds.generator(0)).to(torch.uint8).numpy())
    where = torch.zeros(28, 28, dtype=torch.bool)
    where[:, :14] = True
    for sampler in ("ddpm", "ddim", "dpmpp", "plms", "heun", "euler"):
        samples = model.inpaint(known, where, n=2, steps=3, seed=0, sampler=sampler, label="bag")
        for s in samples:
            assert (s.pixels[:, :14] == known.pixels[:, :14]).all()
        assert (samples[0].pixels[:, 14:] != samples[1].pixels[:, 14:]).any()
        assert samples.conditions == {"label": ["bag", "bag"]}
    whole = model.inpaint(known, where, n=3, steps=2, seed=0, progress=False).tensor
    parts = model.inpaint(known, where, n=3, steps=2, seed=0, batch_size=1, progress=False).tensor
    torch.testing.assert_close(whole, parts, atol=0.01, rtol=0)
    for shape in ((5,), (2, 1, 28, 28)):
        with pytest.raises(ShapeError, match="does not broadcast"):
            model.inpaint(known, torch.ones(shape, dtype=torch.bool))
    with pytest.raises(ShapeError, match="bool"):
        model.inpaint(known, torch.ones(28, 28))


def test_a_variation_starts_from_the_object(model):
    known = ImageSample(torch.randint(0, 256, (28, 28), generator=seeds.generator(0)).to(torch.uint8).numpy())
    settings = {"seed": 0, "sampler": "ddim", "steps": 10, "clip": None, "progress": False}
    x0, schedule = model.codec.encode(known), model.diffusion.schedule
    # the definition, written out: noise of the sample's own generator at level 7 of 10, then the rest of the grid
    levels = schedule.levels(10, model.recipe.sampling.spacing, model.recipe.sampling.at(10).bounds)[7:]
    seen = []
    varied = model.vary(known, 0.3, n=3, batch_size=2, label="bag", on_step=seen.append, **settings)
    assert [s.level for s in seen] == levels[1:] * 2
    noise = seeds.SampleRng(0, range(3)).normal(torch.zeros(3, 1, 28, 28))
    default = model.recipe.sampling
    guidance = Guidance(default.guidance_weight, default.guidance_interval)
    network = Network(model.diffusion, model.denoiser, {"label": torch.full((3,), 8)})
    predict = assemble(network, guidance=guidance)
    with torch.no_grad():
        *_, last = ddim(predict, levels[0].alpha * x0 + levels[0].sigma * noise, levels, rng=seeds.SampleRng(0, range(3)))
    expected = torch.stack([torch.from_numpy(s.numpy()) for s in model.codec.decode(last.x, {})])
    torch.testing.assert_close(varied.tensor, expected, atol=0.01, rtol=0)
    assert varied.conditions == {"label": ["bag"] * 3}
    for strength in (0, 1.5, True, "much"):
        with pytest.raises(ConfigError, match="strength"):
            model.vary(known, strength)
    churned = model.vary(known, 0.5, sampler="heun", steps=4, s_churn=2.0, seed=0, progress=False)
    assert torch.isfinite(churned.tensor).all()


def test_no_memory_advises_a_smaller_chunk(model, monkeypatch):
    def full(*args, **kwargs):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried ...")

    monkeypatch.setattr(model.denoiser, "forward", full)
    with pytest.raises(ResourceError, match=r"chunk of 40 samples. Use a smaller batch_size, e.g. 10"):
        model.sample(100, batch_size=40, **QUICK)


def test_no_memory_while_samples_are_decoded_is_told_alike(model, monkeypatch):
    def full(*args, **kwargs):
        raise RuntimeError("std::bad_alloc")

    monkeypatch.setattr(model.codec, "decode", full)
    with pytest.raises(ResourceError, match=r"chunk of 8 samples. Use a smaller batch_size, e.g. 2"):
        model.sample(8, **QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("left", [30, 160, 300])
def test_memory_that_really_ends(left):
    """In a process of its own, short of address space: while generators are made (100 MB), in the first noise, or later."""
    import subprocess
    import sys

    code = f"""
import resource, zoo
model = zoo.create("image/fashion-ddpm", **{SMALL!r})
model.sample(1, steps=1)
used = int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + {left}_000_000,) * 2)
try:
    model.sample(20_000, batch_size=20_000, steps=1)
except zoo.ZooError as error:
    print(error)
print(len(model.sample(16, steps=1)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "smaller batch_size" in done.stdout and done.stdout.strip().endswith("16")


def test_an_error_that_is_not_about_memory_stays_itself(model, monkeypatch):
    def wrong(*args, **kwargs):
        raise RuntimeError("something else")

    monkeypatch.setattr(model.denoiser, "forward", wrong)
    with pytest.raises(RuntimeError, match="something else"):
        model.sample(1, **QUICK)


def test_weights_that_give_nan_are_named():
    model = build()
    with torch.no_grad():
        model.denoiser.net.exit.bias.fill_(torch.nan)
    with pytest.raises(NumericsError, match="not finite"):
        model.sample(1, **QUICK)


@pytest.mark.slow
def test_memory_does_not_grow_with_n(model):
    model.sample(64, batch_size=16, **QUICK)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model.sample(3000, batch_size=16, **QUICK)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 60e6, "3,000 pictures are 12 MB; their chunks must not pile up"


def test_double_precision_and_half_weights_sample(model):
    for dtype in (torch.float64, torch.bfloat16):
        other = build().to(dtype)
        assert other.dtype == dtype
        assert torch.isfinite(other.sample(1, seed=0, **QUICK).tensor.float()).all()
