"""Sounds as mel pictures: what diffusers' own Mel and AudioDiffusionPipeline compute is the oracle."""

import json
import shutil

import numpy as np
import pytest
import torch
from folders import change
from PIL import Image

import zoo
from zoo import testing
from zoo.audio import band, continuation, gap, loudness
from zoo.audio.data import AudioFolder
from zoo.audio.domain import DOMAIN
from zoo.audio.mel import MelPictureCodec
from zoo.audio.waveform import Waveform
from zoo.contract.recipe import Recipe
from zoo.contract.registry import get_domain
from zoo.core import seeds
from zoo.errors import CheckpointError, ConfigError, DataError
from zoo.interop.convert import convert

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("librosa")

RATE, N = 8000, 2
WIDE = {"x_res": 32, "y_res": 16, "sample_rate": RATE, "n_fft": 256, "hop_length": 64, "top_db": 80, "n_iter": 4}
MELS = {
    "wide": WIDE,
    "square": WIDE | {"x_res": 16, "hop_length": 128},
    "another range": WIDE | {"top_db": 60.5, "n_iter": 9},
    "a wide range": WIDE | {"top_db": 110, "y_res": 20},
    "another window": WIDE | {"n_fft": 250, "hop_length": 100},
}
OWN = {
    "x_res": "frames", "y_res": "mels", "sample_rate": "sample_rate", "n_fft": "n_fft", "hop_length": "hop",
    "top_db": "range_db", "n_iter": "iterations",
}  # fmt: skip


def codec_of(options):
    return MelPictureCodec(**{OWN[k]: v for k, v in options.items()})


def sound(n, seed=0):
    """A tone that rises and grows, with noise."""
    t = np.arange(n) / RATE
    x = np.sin(2 * np.pi * (300 + 900 * t) * t) * np.linspace(0.1, 0.7, n)
    return (x + 0.002 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def bytes_of(x0):
    return ((x0[0] + 1) * 127.5).round().numpy().astype(np.uint8)


def small_pipeline(scheduler=None, mel=None, **options):
    mel = diffusers.Mel(**WIDE if mel is None else mel)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = diffusers.UNet2DModel(
            **{
                "sample_size": (mel.y_res, mel.x_res), "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 16),
                "layers_per_block": 1, "norm_num_groups": 4, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
                "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            } | options
        )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(clip_sample=False) if scheduler is None else scheduler
    pipeline = diffusers.AudioDiffusionPipeline(vqvae=None, unet=net.eval(), mel=mel, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A folder by their own save_pretrained, with a card."""
    folder = tmp_path_factory.mktemp("theirs") / "tones"
    small_pipeline().save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\ndatasets:\n- somebody/tones\n---\n# Tones\n\nThey rise.\n")
    return folder


@pytest.fixture
def same_phases(monkeypatch):
    """Their Griffin-Lim, which takes new phases each time, takes ours."""
    known = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda *_: known(0))


# ---- the codec -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", MELS.values(), ids=MELS)
def test_a_picture_has_the_bytes_of_theirs(options):
    mel, codec = diffusers.Mel(**options), codec_of(options)
    assert codec.shape == (1, mel.y_res, mel.x_res) and codec.samples == mel.slice_size
    long = sound(3 * mel.slice_size + 50)
    mel.load_audio(raw_audio=long)
    slices = [(mel.get_audio_slice(k), np.array(mel.audio_slice_to_image(k))) for k in range(mel.get_number_of_slices())]
    for n in (mel.slice_size // 3, mel.slice_size - 1):  # padded by theirs
        mel.load_audio(raw_audio=long[:n])
        slices.append((long[:n], np.array(mel.audio_slice_to_image(0))))
    mel.load_audio(raw_audio=long)
    slices.append((long, slices[0][1]))  # cropped
    for samples, expected in slices:
        assert expected.max() == 255 and expected.min() < 150
        x0 = codec.encode(Waveform(samples, RATE))
        assert x0.dtype == torch.float32 and np.array_equal(bytes_of(x0), expected)
        # as their pipeline hands it to the net
        assert torch.equal(x0[0], torch.tensor((expected / 255) * 2 - 1, dtype=torch.float))


@pytest.mark.parametrize("seed", [247, 380])
def test_a_padded_clip_is_computed_as_precisely_as_theirs(seed):
    """Of 400 clips these are the ones of which a byte differs where the picture is computed in single precision."""
    mel = diffusers.Mel(**WIDE | {"x_res": 64, "y_res": 64, "n_fft": 1024, "top_db": 110})
    samples = sound(mel.slice_size // 3, seed)
    mel.load_audio(raw_audio=samples)
    codec = MelPictureCodec(sample_rate=RATE, frames=64, mels=64, n_fft=1024, hop=64, range_db=110, iterations=1)
    assert np.array_equal(bytes_of(codec.encode(Waveform(samples, RATE))), np.array(mel.audio_slice_to_image(0)))


def test_the_lowest_frequency_is_the_first_row():
    codec, t = codec_of(WIDE), np.arange(2000) / RATE
    low, high = (codec.encode(Waveform(np.sin(2 * np.pi * f * t), RATE))[0, :, 15].argmax() for f in (200, 3000))
    assert int(low) == 0 and int(high) >= 13
    assert codec.middles()[int(high)] == pytest.approx(3000, rel=0.1) and len(codec.middles()) == 16


@pytest.mark.parametrize("options", MELS.values(), ids=MELS)
def test_a_clip_has_the_samples_of_theirs(options, same_phases):
    mel, codec = diffusers.Mel(**options), codec_of(options)
    picture = bytes_of(codec.encode(Waveform(sound(codec.samples), RATE)))
    expected = mel.image_to_audio(Image.fromarray(picture))
    found = codec.audio(picture)
    assert found.dtype == expected.dtype and np.array_equal(found, expected)
    assert len(found) == (mel.x_res - 1) * mel.hop_length
    # a clip of ours is the same at a peak of 0.9, on the steps of a 16-bit file
    x0 = torch.tensor((picture / 255) * 2 - 1, dtype=torch.float)[None, None]
    clip = codec.decode(x0, {})[0]
    assert np.abs(clip.samples - expected * (0.9 / np.abs(expected).max())).max() <= 0.5 / 32768 + 1e-7
    assert np.array_equal(clip.samples * 32768, np.rint(clip.samples * 32768)) and clip.sample_rate == RATE


def test_bytes_are_rounded_and_bounded_as_theirs():
    codec = codec_of(WIDE)
    seen = []
    codec.audio = lambda picture: seen.append(picture) or np.ones(8, np.float32)
    x0 = torch.linspace(-1.5, 1.5, 512).reshape(1, 1, 16, 32)
    codec.decode(x0, {})
    images = ((x0 / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy() * 255).round().astype("uint8")
    assert np.array_equal(seen[0], images[0, :, :, 0])


def test_clips_are_the_same_each_time_and_alone_and_as_loud_as_their_picture():
    codec = codec_of(WIDE)
    x0 = torch.stack([codec.encode(Waveform(sound(2047, k), RATE)) for k in range(2)])
    together, alone = codec.decode(x0, {}), codec.decode(x0[1:], {})[0]
    assert np.array_equal(together[1].samples, alone.samples)
    assert torch.equal(codec.encode(alone), x0[1])  # exactly what it was decoded from
    dim = (x0[:1] + 1) * (1 - 20 / 80) - 1  # 20 dB below white: all values together
    bright, quiet = (np.abs(codec.decode(x, {})[0].samples).max() for x in (x0[:1], dim))
    assert bright == pytest.approx(0.9, abs=1e-4) and quiet == pytest.approx(0.09, rel=0.02)
    assert np.abs(codec.decode(torch.full((1, 1, 16, 32), -1.0), {})[0].samples).max() < 2e-4  # black is next to nothing


def test_a_clip_that_was_written_keeps_its_picture(tmp_path):
    """Griffin-Lim loses some of it: where a picture is bright, its mean difference in dB, and that of the sound backwards."""
    codec = codec_of(WIDE | {"n_iter": 32})
    x0, other = (codec.encode(Waveform(sound(2047, k)[::step], RATE)) for k, step in ((0, 1), (1, -1)))
    path = codec.decode(x0[None], {})[0].save(tmp_path / "x.wav")
    again = codec.encode(DOMAIN.read(path, Recipe.parse(recipe_of(WIDE))))
    bright = x0 >= 0
    assert float((again - x0).abs()[bright].mean()) * 40 < 6 < 20 < float((other - x0).abs()[bright].mean()) * 40


def test_silence_is_no_picture_and_a_silent_window_is_black():
    codec = codec_of(WIDE)
    with pytest.raises(DataError, match="is silent"):
        codec.encode(Waveform(np.zeros(3000), RATE))
    with pytest.raises(DataError, match=r"16000 Hz for a model at 8000 Hz"):
        codec.encode(Waveform(sound(2047), 16000))
    late = np.concatenate([np.zeros(4000, np.float32), sound(500)])
    assert torch.equal(codec.encode(Waveform(late, RATE)), torch.full((1, 16, 32), -1.0))


def test_a_window_of_a_long_clip_is_drawn_in_training():
    codec, clip = codec_of(WIDE), Waveform(sound(8000), RATE)
    first, again, other = (codec.encode(clip, seeds.generator(k)) for k in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(("option", "value"), [
    ("frames", 0), ("frames", 2.5), ("mels", True), ("mels", 10**6), ("n_fft", 10**9), ("hop", 257), ("iterations", 0),
    ("sample_rate", 3), ("range_db", 0), ("range_db", "80"), ("range_db", float("nan")),
])  # fmt: skip
def test_numbers_outside_their_range_are_named(option, value):
    with pytest.raises(ConfigError, match=rf"mel pictures: {option}={value!r}"):
        MelPictureCodec(**{OWN[k]: v for k, v in WIDE.items()} | {option: value})


# ---- a codec among several of a domain -------------------------------------------------------------------------------------


def recipe_of(options, **changes):
    """A recipe of our own on mel pictures."""
    return {
        "name": "mine", "domain": "audio", "denoiser": "unet", "description": "Tones.",
        "codec": {"kind": "mel-picture"} | {OWN[k]: v for k, v in options.items()},
        "net": {"channels": 8, "multipliers": [1], "attention": [False], "blocks": 1, "emb_dim": 16},
        "sampling": {"sampler": "ddim", "steps": 4, "spacing": "trailing"},
    } | changes  # fmt: skip


def test_a_recipe_names_the_codec_by_its_kind():
    options = recipe_of(WIDE)["codec"]
    assert isinstance(DOMAIN.codec(options), MelPictureCodec)
    with pytest.raises(ConfigError, match=r"unknown audio codec kind 'mel-pictures'.*'mel-picture'"):
        DOMAIN.codec(options | {"kind": "mel-pictures"})
    with pytest.raises(ConfigError, match=r"unknown audio codec kind \['mel-picture'\]"):
        DOMAIN.codec(options | {"kind": ["mel-picture"]})
    with pytest.raises(ConfigError, match=r"hopp.*hop"):
        DOMAIN.codec(options | {"hopp": 3})
    with pytest.raises(ConfigError, match="hop"):
        DOMAIN.codec({k: v for k, v in options.items() if k != "hop"})
    with pytest.raises(ConfigError, match="kind"):
        get_domain("image").codec({"kind": "mel-picture"})


def test_a_model_of_own_parts_says_the_kind(tmp_path):
    model = zoo.create("audio/spec-ddpm", codec=recipe_of(WIDE)["codec"])
    own = zoo.Model.of(model.diffusion, model.denoiser, model.codec)
    assert own.recipe.domain == "audio" and own.recipe.codec == model.recipe.codec


def test_the_contract_holds_for_mel_pictures():
    model, data = testing.prepared(DOMAIN, Recipe.parse(recipe_of(WIDE)))
    ran = [name for name in testing.CHECKS if testing.run(name, model, data, None, 4) is None]
    assert len(ran) > 15


# ---- pipelines -------------------------------------------------------------------------------------------------------------


def test_a_folder_loads_as_a_model_of_sounds(theirs, tmp_path):
    model = zoo.load(theirs)
    recipe = model.recipe
    assert (recipe.domain, recipe.name, recipe.licence, recipe.data) == ("audio", "tones", "mit", "somebody/tones")
    assert recipe.denoiser == "unet2d" and recipe.codec == recipe_of(WIDE)["codec"]
    assert recipe.description.startswith("AudioDiffusionPipeline of diffusers (written by version")
    samples = model.sample(N, steps=2, seed=0)
    assert samples[0].sample_rate == RATE and len(samples[0]) == 31 * 64
    assert samples[0].save(tmp_path / "x.wav").stat().st_size == 44 + 2 * 31 * 64
    assert min(samples.plot().size) > 100


@pytest.mark.parametrize("options", [{}, {"downsample_type": "resnet"}], ids=["ours", "theirs"])
def test_a_net_says_what_theirs_says(tmp_path, options):
    pipeline = small_pipeline(**options)
    pipeline.save_pretrained(tmp_path)
    model = zoo.load(tmp_path)
    assert model.recipe.denoiser == ("diffusers-class" if options else "unet2d")
    x, t = torch.randn(3, 1, 16, 32, generator=seeds.generator(1)), torch.tensor([0.0, 499.0, 999.0])
    with torch.no_grad():
        expected = pipeline.unet(x, t).sample
        assert float((model.diffusion.ask(model.denoiser, x, t, {}) - expected).abs().max()) < 1e-5


def run_theirs(pipeline, monkeypatch, steps, **options):
    """(bytes, last state) of their pipeline, from the noise that ours draws."""
    rng, states = seeds.SampleRng(3, range(N)), []
    for module in (diffusers.schedulers.scheduling_ddpm, diffusers.schedulers.scheduling_ddim):
        monkeypatch.setattr(module, "randn_tensor", lambda shape, **_: rng.normal(torch.zeros(tuple(shape))))
    step = pipeline.scheduler.step
    monkeypatch.setattr(pipeline.scheduler, "step", lambda **given: states.append(step(**given)) or states[-1])
    mel = pipeline.mel
    noise = rng.normal(torch.zeros(N, 1, mel.y_res, mel.x_res))
    found = pipeline(noise=noise, steps=steps, **options)
    return np.stack([np.array(image) for image in found.images]), states[-1].prev_sample


SCHEDULERS = {
    "DDIM": (lambda: diffusers.DDIMScheduler(clip_sample=False), 10, {}),
    "DDIM with noise": (lambda: diffusers.DDIMScheduler(clip_sample=False), 10, {"eta": 1.0}),
    "DDIM, trailing": (lambda: diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing"), 20, {}),
    "DDPM": (lambda: diffusers.DDPMScheduler(), 20, {}),
    "DDPM, all steps": (lambda: diffusers.DDPMScheduler(num_train_timesteps=30, clip_sample=False), 30, {}),
}


@pytest.mark.parametrize(("scheduler", "steps", "options"), SCHEDULERS.values(), ids=SCHEDULERS)
def test_samples_are_the_pictures_of_their_pipeline(tmp_path, monkeypatch, scheduler, steps, options):
    pipeline = small_pipeline(scheduler())
    pipeline.save_pretrained(tmp_path)
    images, expected = run_theirs(pipeline, monkeypatch, steps, **options)
    model = zoo.load(tmp_path)
    *_, last = model.sample_iter(N, seed=3, steps=steps, **options)
    assert float(expected.std()) > 0.1
    assert float((last.x - expected).abs().max() / expected.abs().max().clamp(min=1)) < 1e-4
    found = ((last.x / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)[:, 0].numpy()
    # a value between two bytes may fall to either side
    apart = np.abs(found.astype(int) - images.astype(int))
    assert apart.max() <= 1 and apart.sum() <= 2


def test_the_usual_number_of_steps_is_theirs(theirs, tmp_path):
    small_pipeline(diffusers.DDPMScheduler()).save_pretrained(tmp_path)
    for folder, kind in ((theirs, "ddim"), (tmp_path, "ddpm")):
        sampling = zoo.load(folder).recipe.sampling
        pipeline = diffusers.AudioDiffusionPipeline.from_pretrained(folder)
        assert (sampling.sampler, sampling.steps) == (kind, pipeline.get_default_steps())


def test_gaps_variations_and_steers(theirs):
    model, clip = zoo.load(theirs), Waveform(sound(2047), RATE)
    kept = ~model.codec.frames(0.08, 0.16)
    x0 = model.codec.encode(clip)
    made = model.inpaint(clip, kept, n=2, steps=3, seed=0, method="replace")
    for sample in made:
        assert torch.equal(sample.encoded[kept.expand_as(x0)], x0[kept.expand_as(x0)])
        assert float((sample.encoded - x0)[~kept.expand_as(x0)].abs().max()) > 0.1
    near, far = (model.vary(clip, strength, steps=20, seed=0)[0].encoded for strength in (0.1, 0.9))
    assert float((near - x0).abs().mean()) < float((far - x0).abs().mean())
    steers = {
        "continuation": continuation(clip, 0.1), "gap": gap(clip, 0.05, 0.2), "band": band(500, 2000), "loudness": loudness(-40)
    }  # fmt: skip
    for name, steer in steers.items():
        found = model.sample(1, steps=20, seed=0, steer=[steer])[0].encoded
        if name == "band":
            outside = (model.codec.middles() < 500) | (model.codec.middles() > 2000)
            assert float(found[0, outside].max()) <= -1 + 1e-5 and float(found[0, ~outside].max()) > -0.5
        elif name == "continuation":
            first = model.codec.frames(0, 0.1).expand_as(x0)
            assert torch.allclose(found[first], x0[first], atol=1e-5)


def test_it_trains_on_recordings(theirs, tmp_path):
    (tmp_path / "own").mkdir()
    for k in range(4):
        Waveform(sound(5000, k), 2 * RATE).save(tmp_path / "own" / f"{k}.wav")
    model = zoo.load(theirs)
    before = model.denoiser.conv_in.weight.detach().clone()
    data = AudioFolder(tmp_path / "own", "train", sample_rate=RATE)
    zoo.fit(model, data, steps=1, cpu=True, preview_every=0)
    assert not torch.equal(before, model.denoiser.conv_in.weight)
    assert data.sample_rate == RATE and data.window == model.codec.samples


def test_it_becomes_a_folder_of_ours(theirs, tmp_path):
    model, golden = convert(str(theirs), tmp_path / "mine")
    assert golden == "the net of diffusers itself" and 0 <= model.verify() < 1e-5
    card = (tmp_path / "mine" / "README.md").read_text()
    for said in ("license: mit", "somebody/tones", "imported from folder tones", "They rise.", "audio"):
        assert said in card
    again = zoo.load(tmp_path / "mine")
    assert again.recipe == zoo.load(theirs).recipe
    assert np.array_equal(again.sample(1, steps=2, seed=0)[0].samples, zoo.load(theirs).sample(1, steps=2, seed=0)[0].samples)


# ---- out -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mel", [WIDE, MELS["square"], MELS["another range"]], ids=str)
def test_it_goes_back_as_it_came(tmp_path, monkeypatch, mel):
    small_pipeline(mel=mel, scheduler=diffusers.DDIMScheduler(clip_sample=False)).save_pretrained(tmp_path / "theirs")
    model = zoo.load(tmp_path / "theirs")
    model.export("diffusers", tmp_path / "back")
    model.export("diffusers", tmp_path / "back")  # anew
    before, after = (json.loads((tmp_path / f / "mel" / "mel_config.json").read_text()) for f in ("theirs", "back"))
    assert {k: v for k, v in before.items() if k[0] != "_"} == {k: v for k, v in after.items() if k[0] != "_"}
    pipeline = diffusers.AudioDiffusionPipeline.from_pretrained(tmp_path / "back")
    pipeline.set_progress_bar_config(disable=True)
    _, found = run_theirs(pipeline, monkeypatch, 5)
    *_, last = model.sample_iter(N, seed=3, steps=5)
    assert float((last.x - found).abs().max() / found.abs().max().clamp(min=1)) < 1e-4
    again = zoo.load(tmp_path / "back")
    assert again.recipe.codec == model.recipe.codec and again.recipe.net == model.recipe.net
    assert "audios = AudioDiffusionPipeline" in (tmp_path / "back" / "README.md").read_text()


def test_a_net_of_ours_goes_as_well(tmp_path, monkeypatch):
    model = testing.awake(zoo.create("audio/spec-ddpm", **recipe_changes()))
    model.export("diffusers", tmp_path / "out")
    pipeline = diffusers.AudioDiffusionPipeline.from_pretrained(tmp_path / "out", trust_remote_code=True)
    pipeline.set_progress_bar_config(disable=True)
    _, found = run_theirs(pipeline, monkeypatch, 5)
    *_, last = model.sample_iter(N, seed=3, steps=5)
    assert float((last.x - found).abs().max() / found.abs().max().clamp(min=1)) < 1e-4
    assert zoo.load(tmp_path / "out").recipe == model.recipe
    change(tmp_path / "out", "mel/mel_config.json", top_db=70)
    with pytest.raises(CheckpointError, match="its mel is not that of the recipe"):
        zoo.load(tmp_path / "out")


def recipe_changes():
    """The packaged recipe as a small one of mel pictures that their scheduler samples."""
    own = recipe_of(WIDE)
    return {
        "codec": own["codec"], "net": own["net"], "conditions": {}, "sampling": own["sampling"] | {"guidance_weight": 0.0},
        "schedule": {"kind": "discrete", "curve": "cosine"},
    }  # fmt: skip


def test_spectrograms_of_ours_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"only models of .* mel pictures of sounds \(codec\.kind=mel-picture\)"):
        zoo.create("audio/spec-ddpm").export("diffusers", tmp_path / "out")


# ---- what is wrong ---------------------------------------------------------------------------------------------------------


MEL, UNET, INDEX = "mel/mel_config.json", "unet/config.json", "model_index.json"


@pytest.mark.parametrize(("name", "keys", "match"), [
    (MEL, {"wobble": 3}, r"mel_config\.json has options of a Mel that zoo does not know: wobble=3"),
    *((MEL, {key: ...}, rf"mel_config\.json has no key '{key}'.*defaults are not guessed") for key in OWN),
    (MEL, {"n_fft": "256"}, r"n_fft='256' of a Mel; it must be a whole number"),
    (MEL, {"hop_length": 0}, r"hop_length=0 of a Mel"),
    (MEL, {"hop_length": 300}, r"hop=300.*from 1 to 256"),
    (MEL, {"n_fft": 2**30}, r"n_fft=1073741824"),
    (MEL, {"top_db": -80}, r"top_db=-80 of a Mel; it must be a finite number above 0"),
    (MEL, {"x_res": True}, r"x_res=True of a Mel"),
    (MEL, {"x_res": 64}, r"sample_size=\[16, 32\], and the pictures of its mel have y_res=16 and x_res=64"),
    (MEL, {"_class_name": "Bark"}, r"is that of a Bark; model_index\.json says Mel"),
    (UNET, {"sample_size": 16}, r"sample_size=16, and the pictures of its mel have y_res=16 and x_res=32"),
    (UNET, {"sample_size": None}, r"sample_size=None"),
    (UNET, {"in_channels": 3}, r"in_channels=3; mel pictures have 1"),
    (INDEX, {"mel": ["diffusers", "Bark"]}, r"its mel is a Bark; supported: Mel"),
    (INDEX, {"mel": ["mine", "Mel"]}, r"its mel is Mel of mine, which is code of the repository"),
    (INDEX, {"mel": ...}, r"a AudioDiffusionPipeline and a part mel \(Mel\) belong together"),
    (INDEX, {"_class_name": "DDPMPipeline"}, r"a AudioDiffusionPipeline and a part mel \(Mel\) belong together"),
    (INDEX, {"vqvae": ["diffusers", "AutoencoderKL"]}, r"its vqvae is a AutoencoderKL: sounds as latents are not supported"),
    (INDEX, {"loud": 3}, r"options of a AudioDiffusionPipeline that zoo does not know: loud=3"),
    (INDEX, {"unet": ["diffusers", "UNet2DConditionModel"]}, r"not supported: UNet2DConditionModel"),
    (INDEX, {"vocoder": ["diffusers", "AutoencoderKL"]}, r"not supported: vocoder"),
], ids=str)  # fmt: skip
def test_what_is_wrong_or_unknown_is_named(theirs, tmp_path, name, keys, match):
    folder = shutil.copytree(theirs, tmp_path / "t")
    change(folder, name, **keys)
    with pytest.raises((CheckpointError, ConfigError), match=match):
        zoo.load(folder)


@pytest.mark.parametrize("home", ["diffusers", "audio_diffusion", "audiodiffusion.mel"])
def test_the_module_that_an_index_names_is_not_looked_for(theirs, tmp_path, home):
    """Folders on the Hub have all three."""
    folder = shutil.copytree(theirs, tmp_path / "t")
    change(folder, INDEX, mel=[home, "Mel"], vqvae=...)
    (folder / "mel" / "mel.py").write_text("raise SystemExit\n")
    assert zoo.load(folder).recipe.codec["kind"] == "mel-picture"


def test_a_missing_file_is_named(theirs, tmp_path):
    folder = shutil.copytree(theirs, tmp_path / "t")
    (folder / MEL).unlink()
    with pytest.raises(CheckpointError, match=r"mel_config\.json is missing"):
        zoo.load(folder)
