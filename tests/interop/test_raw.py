"""Pipelines of diffusers on raw sound: their own classes, small and random, write them, and zoo samples from them."""

import json

import numpy as np
import pytest
import torch
from folders import change

import zoo
from zoo.audio.data import AudioFolder
from zoo.audio.raw import WaveformCodec
from zoo.audio.waveform import Waveform
from zoo.cli import main
from zoo.core import seeds
from zoo.errors import CheckpointError, ConfigError, DataError, ShapeError
from zoo.interop.convert import convert

diffusers = pytest.importorskip("diffusers")

RATE, SIZE, N = 8000, 256, 2
SMALL = {
    "sample_size": SIZE, "sample_rate": RATE, "in_channels": 2, "out_channels": 2, "extra_in_channels": 32,
    "block_out_channels": (16, 32, 32), "time_embedding_type": "fourier", "flip_sin_to_cos": True,
}  # fmt: skip
UNET, SCHEDULER, INDEX = "unet/config.json", "scheduler/scheduler_config.json", "model_index.json"


def written(folder, scheduler=None, **options):
    """A folder by their own save_pretrained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = diffusers.UNet1DModel(**SMALL | options).eval()
    pipeline = diffusers.DanceDiffusionPipeline(unet=net, scheduler=scheduler or diffusers.IPNDMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\ndatasets:\n- somebody/pianos\n---\n# Pianos\n\nThey play.\n")
    return pipeline


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """(folder, pipeline) of two channels that nobody changes."""
    folder = tmp_path_factory.mktemp("theirs") / "pianos"
    return folder, written(folder)


def sound(n, seed=0):
    return (0.3 * np.random.default_rng(seed).standard_normal(n)).clip(-1, 1).astype(np.float32)


def of_theirs(pipeline, monkeypatch, channels, steps):
    """What their pipeline makes of the noise that ours draws."""
    module = __import__(type(pipeline).__module__, fromlist=["randn_tensor"])
    noise = seeds.SampleRng(3, range(N)).normal(torch.zeros(N, channels, SIZE))
    monkeypatch.setattr(module, "randn_tensor", lambda shape, **_: noise.view(shape))
    return torch.from_numpy(pipeline(N, num_inference_steps=steps).audios)


def ours(model, **arguments):
    *_, last = model.sample_iter(N, seed=3, **arguments)
    return last.x


# ---- net and samples -------------------------------------------------------------------------------------------------------

NETS = {
    "stereo": {},
    "mono": {"in_channels": 1, "out_channels": 1},
    "positional times": {"time_embedding_type": "positional", "extra_in_channels": 16, "freq_shift": 1.0},
    "features of its own": {"time_embedding_dim": 12, "extra_in_channels": 12, "flip_sin_to_cos": False},
}  # fmt: skip


@pytest.mark.parametrize("options", NETS.values(), ids=NETS)
def test_net_and_samples_are_theirs(tmp_path, monkeypatch, options):
    pipeline = written(tmp_path / "theirs", **options)
    model, channels = zoo.load(tmp_path / "theirs"), options.get("in_channels", 2)
    assert model.recipe.codec == {"kind": "waveform", "sample_rate": RATE, "samples": SIZE, "channels": channels}
    assert (model.recipe.licence, model.recipe.data) == ("mit", "somebody/pianos")
    x, t = torch.randn(2, channels, SIZE, generator=seeds.generator(1)), torch.tensor([0.013, 0.97])
    with torch.no_grad():
        expected = torch.cat([pipeline.unet(x[i : i + 1], t[i]).sample for i in range(2)])
        assert float((model.diffusion.ask(model.denoiser, x, t, {}) - expected).abs().max()) < 1e-5
    expected = of_theirs(pipeline, monkeypatch, channels, 100)
    assert float(expected.std()) > 0.01 and float(expected.abs().amax()) <= 1
    settings = model.plan(1)
    assert (settings.steps, settings.sampler) == (100, "plms") and model.recipe.sampling.options == {"start": "zero"}
    assert float((ours(model).clamp(-1, 1) - expected).abs().max()) < 1e-4  # in their usual steps
    expected = of_theirs(pipeline, monkeypatch, channels, 10)
    assert float((ours(model, steps=10, end="sum").clamp(-1, 1) - expected).abs().max()) < 1e-4


def test_the_first_prediction_counts_where_it_is_asked_for(theirs, monkeypatch):
    folder, pipeline = theirs
    model, expected = zoo.load(folder), of_theirs(pipeline, monkeypatch, 2, 20)
    off = float((ours(model, steps=20, start="x0").clamp(-1, 1) - expected).abs().max())
    assert off > 1e-4
    assert "end='sum'" in model.recipe.description


def test_clips_are_those_of_their_pipeline(theirs, monkeypatch, tmp_path):
    import soundfile

    folder, pipeline = theirs
    samples = zoo.load(folder).sample(N, seed=3, steps=10, end="sum")
    expected = of_theirs(pipeline, monkeypatch, 2, 10).numpy()
    for clip, sides in zip(samples, expected, strict=True):
        assert clip.sides.shape == (2, SIZE) and clip.sample_rate == RATE
        assert np.abs(clip.sides - sides).max() < 1e-4
        assert np.allclose(clip.samples, clip.sides.mean(0))
    samples.save(tmp_path / "clips")
    written, rate = soundfile.read(next(iter(sorted((tmp_path / "clips").rglob("*.wav")))))
    assert rate == RATE and written.shape == (SIZE, 2) and np.abs(written.T - samples[0].sides).max() < 1e-6


def test_a_saved_model_is_the_same_one_and_goes_back(theirs, tmp_path, capsys):
    folder, pipeline = theirs
    model = zoo.load(folder)
    model.save_pretrained(tmp_path / "mine")
    again = zoo.load(tmp_path / "mine")
    assert again.recipe == model.recipe and again.verify() == 0
    assert torch.equal(ours(again, steps=5), ours(model, steps=5))
    made, _ = convert(str(folder), tmp_path / "converted")
    card = (tmp_path / "converted" / "README.md").read_text()
    assert made.verify() == 0 and "license: mit" in card and "They play." in card
    assert main(["convert", str(tmp_path / "converted"), str(tmp_path / "back"), "--to", "diffusers"]) == 0
    back = diffusers.DanceDiffusionPipeline.from_pretrained(tmp_path / "back")
    assert type(back.scheduler) is diffusers.IPNDMScheduler
    known = pipeline.unet.state_dict()
    assert all(torch.equal(v, known[k]) for k, v in back.unet.state_dict().items())
    assert {k: v for k, v in back.unet.config.items() if k[0] != "_"} == {
        k: list(v) if isinstance(v, tuple) else v for k, v in pipeline.unet.config.items() if k[0] != "_"
    }
    assert torch.equal(ours(zoo.load(tmp_path / "back"), steps=5), ours(model, steps=5))
    assert ".audios" in (tmp_path / "back" / "README.md").read_text()


def test_only_what_their_pipeline_does_is_written(theirs, tmp_path):
    model = zoo.load(theirs[0])
    for change_of in ({"sampler": "ddim", "options": {}}, {"options": {}}):
        sampling = model.recipe.sampling.model_copy(update=change_of)
        model.recipe = model.recipe.model_copy(update={"sampling": sampling})
        with pytest.raises(ConfigError, match=r"plms.*start='zero'.*trailing"):
            model.export("diffusers", tmp_path / "out")


@pytest.mark.parametrize("channels", [1, 2])
def test_a_gap_is_made_anew(theirs, tmp_path, channels):
    folder = tmp_path / "one"
    if channels == 2:
        folder = theirs[0]
    else:
        written(folder, in_channels=1, out_channels=1)
    model = zoo.load(folder)
    clip = Waveform(sound(SIZE), RATE) if channels == 1 else Waveform.stereo([sound(SIZE), sound(SIZE, 1)], RATE)
    where = ~model.codec.frames(0.01, 0.02)
    assert where.shape == (1, SIZE) and int((~where).sum()) == 80
    made = model.inpaint(clip, where, n=1, seed=0, steps=5, method="replace")[0]
    found, known = (c.samples if channels == 1 else c.sides for c in (made, clip))
    assert np.abs(found - known)[..., :80].max() <= 0.5 / 32768 and np.abs(found - known)[..., 160:].max() <= 0.5 / 32768
    assert np.abs(found - known)[..., 80:160].max() > 0.05
    path = clip.save(tmp_path / "x.wav")
    read = model.domain.read(path, model.recipe)
    assert np.abs((read.samples if channels == 1 else read.sides) - known).max() <= 0.5 / 32768
    steered = model.sample(1, seed=0, steps=5, steer=[zoo.audio.gap(str(path), 0.01, 0.02)])[0]
    assert np.abs((steered.samples if channels == 1 else steered.sides)[..., :80] - known[..., :80]).max() < 1e-4
    with pytest.raises(ConfigError, match="band: a steer of spectrograms, and this model's codec is a WaveformCodec"):
        model.sample(1, seed=0, steps=2, steer=[zoo.audio.band(100, 900)])


def test_it_is_trained_on(theirs, tmp_path):
    for i in range(3):
        Waveform(sound(2 * SIZE, i), RATE).save(tmp_path / f"{i}.wav")
    model = zoo.load(theirs[0])
    before = {k: v.clone() for k, v in model.denoiser.state_dict().items()}
    zoo.fit(model, AudioFolder(tmp_path, "train", sample_rate=RATE), steps=2, cpu=True)
    moved = {k for k, v in model.denoiser.state_dict().items() if not torch.equal(v, before[k])}
    still = (".time_proj.weight", ".kernel")
    # the same number added to all keys changes no attention: they move by rounding, or not at all
    assert moved - {k for k in before if k.endswith(".key.bias")} == {
        k for k in before if not k.endswith((*still, ".key.bias"))
    }
    assert model.sample(1, steps=2, seed=0)[0].sides.shape == (2, SIZE)


def test_on_the_command_line(theirs, tmp_path, capsys):
    assert main(["convert", str(theirs[0]), str(tmp_path / "mine")]) == 0
    assert main(["sample", str(tmp_path / "mine"), "-n", "1", "--steps", "2", "--seed", "0", "-o", str(tmp_path / "out")]) == 0
    assert main(["verify", str(tmp_path / "mine")]) == 0
    assert list((tmp_path / "out").rglob("*.wav"))


# ---- files -----------------------------------------------------------------------------------------------------------------


def test_features_of_times_are_read_off_the_weights_where_the_file_is_older(tmp_path, monkeypatch):
    """Before there was a choice there were 16, and now as many as the first level has channels, twice: a default that moved."""
    pipeline = written(tmp_path, time_embedding_dim=16, extra_in_channels=16)
    change(tmp_path, UNET, time_embedding_dim=...)
    model = zoo.load(tmp_path)
    assert model.recipe.net["config"]["time_embedding_dim"] == 16
    found, expected = ours(model, steps=5, end="sum"), of_theirs(pipeline, monkeypatch, 2, 5)
    assert float((found.clamp(-1, 1) - expected).abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("name", "keys", "match"),
    [
        (UNET, {"wobble": 3}, r"options of a UNet1DModel that zoo does not know: wobble=3"),
        (UNET, {"sample_rate": ...}, r"has no key 'sample_rate'.*defaults are not guessed"),
        (UNET, {"sample_rate": None}, r"sample_rate=None of a UNet1DModel; it must be a whole number"),
        (UNET, {"sample_rate": 3}, r"raw sound: sample_rate=3; give a whole number from 1,000"),
        (UNET, {"in_channels": 3, "out_channels": 3}, r"in_channels=3, out_channels=3; zoo has sounds of 1 channel or 2"),
        (UNET, {"out_channels": 1}, r"in_channels=2, out_channels=1"),
        (UNET, {"sample_size": 100}, r"sample_size=100; its 3 levels need a multiple of 8, from 24 on"),
        (UNET, {"sample_size": 16}, r"sample_size=16; its 3 levels"),
        (UNET, {"time_embedding_type": "learned"}, r"unknown time_embedding_type .*'learned'"),
        (UNET, {"down_block_types": ["DownBlock1D", "Down", "AttnDownBlock1D"]}, r"unknown down_block_types .* 'Down'"),
        (UNET, {"out_block_type": "Something"}, r"out_block_type='Something' .*Supported: None"),
        (UNET, {"use_timestep_embedding": True}, r"use_timestep_embedding=True of a UNet1DModel of sound is not supported"),
        (UNET, {"extra_in_channels": 8}, r"do not belong together|does not fit|fit together"),
        (UNET, {"down_block_types": ["DownBlock1D", "DownBlock1D", "AttnDownBlock1D"]}, r"does not fit|fit together"),
        (UNET, {"up_block_types": ["AttnUpBlock1D", "UpBlock1D"]}, r"does not fit|cannot be made|fit together"),
        (UNET, {"block_out_channels": [16, 32]}, r"cannot be made of it"),
        (SCHEDULER, {"trained_betas": [0.1] * 10}, r"trained_betas=\[.*of a IPNDMScheduler is not supported"),
        (SCHEDULER, {"wobble": 3}, r"options of a IPNDMScheduler that zoo does not know: wobble=3"),
        (SCHEDULER, {"num_train_timesteps": "many"}, r"num_train_timesteps='many'"),
        (INDEX, {"wobble": 3}, r"options of a DanceDiffusionPipeline that zoo does not know: wobble=3"),
        (INDEX, {"mel": ["diffusers", "Mel"]}, r"not supported: mel"),
        (INDEX, {"scheduler": ["diffusers", "DDIMScheduler"]}, r"with a DDIMScheduler: earlier versions .* IPNDMScheduler"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_or_unknown_is_named(tmp_path, name, keys, match):
    written(tmp_path)
    change(tmp_path, name, **keys)
    with pytest.raises((CheckpointError, ConfigError), match=match):
        zoo.load(tmp_path)


@pytest.mark.parametrize("options", [
    {"extra_in_channels": 8}, {"up_block_types": ("AttnUpBlock1D", "UpBlock1D", "UpBlock1D")},
], ids=str)  # fmt: skip
def test_blocks_that_do_not_fit_together_are_found_out(tmp_path, options):
    """Theirs saves such a net, and its weights fit its config, but no call of it works, or it makes more samples."""
    written(tmp_path, **options)
    with pytest.raises(CheckpointError, match="fit together"):
        zoo.load(tmp_path)


def test_wrong_weights_are_named(tmp_path):
    from safetensors.torch import load_file, save_file

    written(tmp_path)
    path = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    whole = load_file(path)
    some = next(k for k in whole if k.startswith("mid_block"))
    save_file({k: v for k, v in whole.items() if k != some}, path)
    with pytest.raises(CheckpointError, match=f"missing.*{some}"):
        zoo.load(tmp_path)
    save_file(whole | {"further": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="further"):
        zoo.load(tmp_path)
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(CheckpointError, match=r"is a pickle, .*UNet1DModel\.from_pretrained"):
        zoo.load(tmp_path)


TRAJECTORIES = {
    "in_channels": 14, "out_channels": 14, "down_block_types": ["DownResnetBlock1D"] * 2, "block_out_channels": [32, 64],
    "up_block_types": ["UpResnetBlock1D"], "mid_block_type": "MidResTemporalBlock1D", "out_block_type": "OutConv1DBlock",
    "use_timestep_embedding": True, "time_embedding_type": "positional", "act_fn": "mish",
}  # fmt: skip


def test_nets_of_trajectories_are_refused_by_name(tmp_path):
    """As those of bglick13/hopper-medium-v2: their configs, their own class, no weights needed."""
    options = SMALL | {"sample_size": 65536, "sample_rate": None, "extra_in_channels": 0} | TRAJECTORIES
    net = diffusers.UNet1DModel(**options)
    net.save_pretrained(tmp_path / "net")
    with pytest.raises(CheckpointError, match=r"with DownResnetBlock1D, .*of trajectories .*reinforcement learning"):
        zoo.load(tmp_path / "net")
    change(tmp_path / "net", "config.json", mid_block_type="ValueFunctionMidBlock1D", out_block_type="ValueFunction")
    with pytest.raises(CheckpointError, match=r"ValueFunction: a net of the value of trajectories"):
        zoo.load(tmp_path / "net")
    written(tmp_path / "whole")
    change(tmp_path / "whole", INDEX, value_function=["diffusers", "UNet1DModel"])
    with pytest.raises(CheckpointError, match="a value_function: a net of trajectories"):
        zoo.load(tmp_path / "whole")


def test_a_net_alone_needs_its_noise(tmp_path):
    net = written(tmp_path / "theirs").unet
    net.save_pretrained(tmp_path / "net")
    with pytest.raises(CheckpointError, match=r"no scheduler_config\.json"):
        zoo.load(tmp_path / "net")
    from zoo.core.diffusion import Diffusion
    from zoo.core.schedule import CosineSchedule

    model = zoo.load(tmp_path / "net", diffusion=Diffusion(CosineSchedule(crash=True), "v"))
    given = {"sampler": "plms", "start": "zero", "steps": 5}
    assert torch.equal(ours(model, **given), ours(zoo.load(tmp_path / "theirs"), **given))


def test_a_pickle_of_a_repository_is_refused_before_anything_is_fetched():
    from zoo.interop.diffusers.folder import files_of

    listed = [INDEX, UNET, SCHEDULER, "unet/diffusion_pytorch_model.safetensors", "README.md", "x.wav"]
    assert files_of(listed) == sorted(listed[:-1])
    with pytest.raises(CheckpointError, match=r"unet/diffusion_pytorch_model\.bin of this repository are a pickle"):
        files_of([INDEX, UNET, SCHEDULER, "unet/diffusion_pytorch_model.bin"])


# ---- the codec -------------------------------------------------------------------------------------------------------------


def test_channels_of_clips_and_of_the_codec():
    mono, stereo = Waveform(sound(9), RATE), Waveform.stereo([sound(9), sound(9, 1)], RATE)
    one, two = (WaveformCodec(sample_rate=RATE, samples=12, channels=c) for c in (1, 2))
    assert one.encode(stereo).shape == (1, 12) and np.allclose(one.encode(stereo)[0, :9], stereo.samples)
    assert torch.equal(two.encode(mono)[0], two.encode(mono)[1]) and np.array_equal(two.encode(mono)[0, :9], mono.samples)
    assert np.array_equal(two.encode(stereo)[:, :9], stereo.sides) and not two.encode(stereo)[:, 9:].any()
    assert one.place(stereo).shape == two.place(stereo).shape == (12,)
    rng = torch.Generator().manual_seed(0)
    long = Waveform.stereo(np.arange(60).reshape(2, 30) / 100, RATE)
    part = two.encode(long, rng)
    assert torch.allclose(part[1] - part[0], torch.full((12,), 0.3)) and float(part[0, 0]) > 0  # one place for both
    assert np.array_equal(two.encode(long), long.sides[:, :12])


def test_clips_lie_on_the_steps_of_a_file_and_come_back_exact():
    codec = WaveformCodec(sample_rate=RATE, samples=5, channels=2)
    x0 = torch.tensor([[[0.1, -2.0, 2.0, 0.0, 0.25], [0.0, 0.0, 0.0, 0.0, 0.0]]])
    clip = codec.decode(x0, {})[0]
    assert np.array_equal(clip.sides * 32768, np.rint(clip.sides * 32768)) and np.abs(clip.sides).max() <= 1
    assert torch.equal(codec.encode(clip), x0[0])
    assert np.array_equal(codec.sound(x0)[0], clip.samples)
    with pytest.raises(ShapeError, match=r"must be \(B, 2, 5\)"):
        codec.decode(x0[:, :1], {})


def test_a_stereo_clip_keeps_both_channels(tmp_path):
    clip = Waveform.stereo([np.zeros(4000), 0.5 * np.sin(np.arange(4000) / 5)], RATE)
    assert np.allclose(clip.samples, clip.sides.mean(0)) and "stereo" in repr(clip) and "peak 0.500" in repr(clip)
    other = clip.resample(4000)
    assert other.sides.shape == (2, 2000) and not other.sides[0].any()
    quiet = Waveform.stereo(np.pad(clip.sides, ((0, 0), (2000, 0))), RATE).trim()
    assert quiet.sides.shape[1] < 5000
    from zoo.audio.reading import read_clip

    path = clip.save(tmp_path / "x.wav")
    assert read_clip(path).sides is None and np.abs(read_clip(path, stereo=True).sides - clip.sides).max() <= 0.5 / 32768
    assert read_clip(Waveform(sound(99), RATE).save(tmp_path / "y.wav"), stereo=True).sides is None
    for odd in (np.zeros(5), np.zeros((3, 5)), np.zeros((2, 0)), "left"):
        with pytest.raises(ShapeError):
            Waveform.stereo(odd, RATE)
    with pytest.raises(DataError, match="NaN"):
        Waveform.stereo([[float("nan")], [1.0]], RATE)


@pytest.mark.parametrize(
    ("options", "match"),
    [({"channels": 3}, "channels=3"), ({"samples": 0}, "samples=0"), ({"sample_rate": 5}, "sample_rate=5"),
     ({"samples": True}, "samples=True"), ({"channels": 1.5}, r"channels=1\.5")],
    ids=str,
)  # fmt: skip
def test_options_of_the_codec(options, match):
    with pytest.raises(ConfigError, match=f"raw sound: {match}; give a whole number"):
        WaveformCodec(**{"sample_rate": RATE, "samples": 16} | options)


def test_a_stereo_clip_is_not_augmented_as_if_it_were_mono(theirs, tmp_path):
    model = zoo.load(theirs[0])
    augment = model.domain.augment({"noise": 0.1})
    clip = Waveform.stereo([sound(9), sound(9, 1)], RATE)
    with pytest.raises(DataError, match="a stereo clip: the augmentations of sounds are of one channel"):
        augment.apply(clip, {}, torch.Generator(), model.codec)


def test_what_zoo_info_says_of_it(theirs, capsys):
    assert main(["info", str(theirs[0])]) == 0
    assert "UNet1DModel" in capsys.readouterr().out
    assert json.loads((theirs[0] / INDEX).read_text())["_class_name"] == "DanceDiffusionPipeline"
