"""Pipelines of diffusers on latents: their own classes, small and of random weights, write them, and zoo samples from them."""

import json
import sys

import numpy as np
import pytest
import torch
from folders import change

import zoo
from zoo.cli import main
from zoo.core import seeds
from zoo.core.diffusion import Diffusion
from zoo.core.schedule import DiscreteSchedule
from zoo.errors import CheckpointError, ConfigError
from zoo.interop.diffusers.folder import files_of
from zoo.interop.diffusers.prompt import read_tokenizer

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

N, LENGTH = 2, 12
LETTERS = [chr(c) for c in (*range(ord("!"), ord("~") + 1), 0xA1, 0xA9, 0xC3)]
MERGES = ["c a", "ca t</w>", "d o", "do g</w>", "1 2"]
START, END = "<|startoftext|>", "<|endoftext|>"
TOKENS = [*LETTERS, *(f"{c}</w>" for c in LETTERS), *("".join(m.split()) for m in MERGES), START, END]
TEXTS = ["cat, dog", "A CAT'S 12 dogs!"]


def built(kind, *arguments, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(*arguments, **options).eval()


def tokenizer(**options):
    table = {t: i for i, t in enumerate(TOKENS)}
    pairs = [tuple(m.split()) for m in MERGES]
    return transformers.CLIPTokenizer(vocab=table, merges=pairs, **{"model_max_length": LENGTH} | options)


def autoencoder(**options):
    return built(
        diffusers.AutoencoderKL, block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, sample_size=16, **options,
    )  # fmt: skip


def text_encoder():
    end = len(TOKENS) - 1
    config = transformers.CLIPTextConfig(
        vocab_size=len(TOKENS), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=LENGTH, bos_token_id=end - 1, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    return built(transformers.CLIPTextModel, config)


def words(folder, scheduler=None, vae=None, **options):
    """A folder of Stable Diffusion's kind, by the peer's own save_pretrained."""
    net = built(
        diffusers.UNet2DConditionModel, sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2, **options,
    )  # fmt: skip
    pipeline = diffusers.StableDiffusionPipeline(
        vae or autoencoder(), text_encoder(), tokenizer(), net, scheduler or ddim(), None, None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    return pipeline


def labels(folder, scheduler=None, **options):
    """A folder of DiT's kind: its pipeline takes the label 1000 for none."""
    net = built(
        diffusers.DiTTransformer2DModel, sample_size=8, num_layers=2, num_attention_heads=2, attention_head_dim=8,
        **{"out_channels": 8} | options,
    )  # fmt: skip
    # 1 and 2 have one first name, 3 and 4 all names
    named = {i: f"class {i}, another name" for i in range(1000)} | {1: "crane, bird", 2: "crane, machine", 3: "twin", 4: "twin"}
    pipeline = diffusers.DiTPipeline(net, autoencoder(), scheduler or ddim())
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    change(folder, "model_index.json", id2label=named)  # their own file has it, and nothing there writes it
    return pipeline


def ddim():
    # as Stable Diffusion's
    return diffusers.DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """(folder, pipeline) that nobody changes."""
    folder = tmp_path_factory.mktemp("words")
    return folder, words(folder)


def noise():
    return seeds.SampleRng(3, range(N)).normal(torch.zeros(N, 4, 8, 8))


def ours(model, **arguments):
    """Pictures in [0, 1] as their pipelines give them."""
    *_, last = model.sample_iter(N, seed=3, **{"steps": 10} | arguments)
    with torch.no_grad():
        return (model.codec.lower(last.x) / 2 + 0.5).clamp(0, 1)


def theirs(pipeline, prompt, **arguments):
    return pipeline(prompt, latents=noise(), output_type="pt", **{"num_inference_steps": 10} | arguments).images


def off(found, expected):
    assert torch.isfinite(expected).all() and float(expected.std()) > 0.01
    return float((found - expected).abs().max())


# ---- samples ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_pictures_from_words_are_those_of_their_pipeline(told, scale):
    folder, pipeline = told
    model = zoo.load(folder)
    assert model.codec.shape == (4, 8, 8) and model.recipe.sampling.guidance_weight == 6.5
    assert off(ours(model, text=TEXTS, guidance_scale=scale), theirs(pipeline, TEXTS, guidance_scale=scale)) < 1e-5
    other = theirs(pipeline, TEXTS[::-1], guidance_scale=scale)
    assert off(ours(model, text=TEXTS, guidance_scale=scale), other) > 1e-3  # the text counts


def test_guidance_leads_away_from_a_text(told):
    folder, pipeline = told
    model = zoo.load(folder)
    expected = theirs(pipeline, TEXTS, negative_prompt=["a dog"] * N, guidance_scale=7.5)
    assert off(ours(model, text=TEXTS, negative={"text": "a dog"}, guidance_scale=7.5), expected) < 1e-5
    assert off(ours(model, text=TEXTS, guidance_scale=7.5), expected) > 1e-4


def test_the_empty_text_is_nothing(told):
    folder, pipeline = told
    model = zoo.load(folder)
    expected = theirs(pipeline, ["", " "], guidance_scale=1.0)
    for text in (None, "", " \n", [None, ""]):
        assert off(ours(model, text=text), expected) < 1e-5
    assert model.sample(2, text=["", "cat"], steps=1, seed=0).conditions["text"] == [None, "cat"]


SCHEDULERS = {
    "ddim of velocity": lambda: diffusers.DDIMScheduler(clip_sample=False, prediction_type="v_prediction"),
    "dpm": lambda: diffusers.DPMSolverMultistepScheduler(beta_schedule="scaled_linear", steps_offset=1),
    "pndm of the first releases": lambda: diffusers.PNDMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True, steps_offset=1
    ),
    "a shifted scale": lambda: ddim(),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULERS)
def test_other_schedulers_and_scales(tmp_path, name):
    vae = autoencoder(scaling_factor=0.9) if name == "a shifted scale" else None
    pipeline = words(tmp_path, SCHEDULERS[name](), vae, use_linear_projection=True)
    model = zoo.load(tmp_path)
    assert off(ours(model, text=TEXTS, guidance_scale=3.0), theirs(pipeline, TEXTS, guidance_scale=3.0)) < 1e-5


def test_texts_are_read_as_theirs(told):
    folder, pipeline = told
    prompt = read_tokenizer(folder / "tokenizer")
    texts = [
        "cat",
        " CAT  dog\tcat",
        "cat's",
        "12 1 2",
        "é ¡",
        "a" * 5,
        "x\u4e00y",
        f"{END} cat",
        "cat " * 20,
        "!?...",
        "O\u030a",
    ]
    for text in texts:
        expected = pipeline.tokenizer(text, padding="max_length", max_length=LENGTH, truncation=True).input_ids
        assert prompt.ids(text) == expected
    assert prompt.ids("") == prompt.ids("  ") == [-1] * LENGTH
    assert list(prompt.blank) == pipeline.tokenizer("", padding="max_length", max_length=LENGTH).input_ids
    with pytest.warns(UserWarning, match=r"text: longer than 12 tokens, of which the first are used: 'cat cat"):
        prompt.read("cat " * 20, 1, zoo.contract.conditions.Reading("text"))
    with pytest.raises(ConfigError, match=r"3 \(int\) is not a text"):
        prompt.read(3, 1)
    rows = prompt.read(TEXTS, 2).values
    assert torch.equal(prompt.read(rows, 2).values, rows) and torch.equal(prompt.batch([*rows.numpy()]), rows)
    assert torch.equal(prompt.batch([TEXTS[0], None]), torch.stack([rows[0], prompt.null(1)[0]]))
    with pytest.raises(ConfigError, match="give 12 below"):
        prompt.read([10**6] * LENGTH, 1)


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_pictures_from_labels_are_those_of_their_pipeline(tmp_path, monkeypatch, scale):
    pipeline = labels(tmp_path)
    model = zoo.load(tmp_path)
    known = model.recipe.conditions["label"].values
    assert len(known) == 1000 and known[:6] == ("class 0", "crane, bird", "crane, machine", "twin (3)", "twin (4)", "class 5")
    monkeypatch.setattr(diffusers.pipelines.dit.pipeline_dit, "randn_tensor", lambda *_, **__: noise())
    expected = pipeline([2, 999], guidance_scale=scale, num_inference_steps=10, output_type="pt").images
    assert off(ours(model, label=["crane, machine", "class 999"], guidance_scale=scale), expected) < 1e-5
    assert off(ours(model, label=[5, 6], guidance_scale=scale), expected) > 1e-4
    assert model.recipe.sampling.guidance_weight == 3.0 and model.sample(2, steps=1)[0].pixels.shape == (16, 16, 3)


def test_a_learned_variance_of_labels_is_that_of_their_scheduler(tmp_path, monkeypatch):
    """Their pipeline drops the second half of the output before the scheduler that asks for it, and fails; ours uses it."""
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range", clip_sample=False)
    pipeline = labels(tmp_path, scheduler)
    model = zoo.load(tmp_path)
    assert model.diffusion.learned_variance and model.recipe.sampling.options == {"variance": "learned"}
    monkeypatch.setattr(diffusers.pipelines.dit.pipeline_dit, "randn_tensor", lambda *_, **__: noise())
    with pytest.raises(TypeError):
        pipeline([2, 999], guidance_scale=1.0, num_inference_steps=10, output_type="pt")
    rng = seeds.SampleRng(3, range(N))

    def draw(*_, **__):
        return rng.normal(torch.zeros(N, 4, 8, 8))

    monkeypatch.setattr(diffusers.schedulers.scheduling_ddpm, "randn_tensor", draw)
    x, label = draw(), torch.tensor([2, 999])
    scheduler.set_timesteps(10)
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(pipeline.transformer(x, t.expand(N), label).sample, t, x).prev_sample
    *_, last = model.sample_iter(N, seed=3, steps=10, label=["crane, machine", "class 999"], guidance_weight=0)
    assert off(last.x, x) < 1e-4 * float(x.abs().max())
    labels(tmp_path / "b", scheduler, out_channels=4)
    with pytest.raises(CheckpointError, match=r"out_channels=4 for 4 channels.*give 8"):
        zoo.load(tmp_path / "b")


def test_a_transformer_of_the_older_class_and_without_names(tmp_path):
    labels(tmp_path, num_embeds_ada_norm=7, out_channels=4)
    with pytest.raises(CheckpointError, match="id2label must name the 7 labels of its net, '0' to '6'"):
        zoo.load(tmp_path)
    change(tmp_path, "model_index.json", id2label=...)
    expected = zoo.load(tmp_path, diffusion=Diffusion(DiscreteSchedule("linear"), "eps"))
    change(tmp_path, "model_index.json", transformer=["diffusers", "Transformer2DModel"])
    before = {"cross_attention_dim": None, "num_vector_embeds": None, "double_self_attention": False}
    change(tmp_path, "transformer/config.json", _class_name="Transformer2DModel", **before)
    found = zoo.load(tmp_path, diffusion=Diffusion(DiscreteSchedule("linear"), "eps"))
    assert found.recipe.conditions["label"].values == tuple("0123456")
    assert torch.equal(ours(found, label=2, steps=2), ours(expected, label=2, steps=2))
    change(tmp_path, "transformer/config.json", num_vector_embeds=3)
    with pytest.raises(CheckpointError, match="num_vector_embeds=3 of a Transformer2DModel is not supported"):
        zoo.load(tmp_path)


# ---- first stages ----------------------------------------------------------------------------------------------------------


def test_an_autoencoder_alone_is_a_first_stage(tmp_path):
    vae = autoencoder(latent_channels=3)
    vae.save_pretrained(tmp_path / "vae")
    stage = zoo.load(tmp_path / "vae")
    assert stage.is_first_stage and stage.recipe.domain == "image"
    pictures = list(np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8))
    x = torch.stack([stage.codec.encode(p) for p in pictures])
    with torch.no_grad():
        expected = vae.encode(x).latent_dist
        assert torch.allclose(stage.encode(pictures), expected.mean, atol=1e-5)
        assert torch.allclose(stage.denoiser.encode(x)[1], expected.logvar, atol=1e-5)
        assert torch.allclose(stage.denoiser(x, None, {}), vae.decode(expected.mean).sample, atol=1e-5)
    assert stage.reconstruct(pictures)[0].pixels.shape == (16, 16, 3)
    with pytest.raises(ConfigError, match=r"diffusion=: .* an autoencoder alone"):
        zoo.load(tmp_path / "vae", diffusion=Diffusion(DiscreteSchedule("linear"), "eps"))
    model = zoo.create("image/flowers-latent", **{"codec.stage": str(tmp_path / "vae"), "codec.size": 16, "net.channels": 16})
    assert model.codec.shape == (3, 8, 8)
    stage.save_pretrained(tmp_path / "mine")
    assert zoo.load(tmp_path / "mine").verify() == 0


def test_the_autoencoder_of_a_pipeline_is_a_first_stage(told):
    folder, _ = told
    found = zoo.create("image/flowers-latent", **{"codec.stage": str(folder), "codec.size": 16, "net.channels": 16})
    assert found.recipe.stage.sha256 == zoo.load(folder).recipe.stage.sha256


# ---- files -----------------------------------------------------------------------------------------------------------------


def test_a_converted_model_is_the_same_one(told, tmp_path, capsys, monkeypatch):
    folder, _ = told
    model = zoo.load(folder)
    expected = ours(model, text=TEXTS, steps=2)
    assert main(["convert", str(folder), str(tmp_path / "mine")]) == 0
    again = zoo.load(tmp_path / "mine")
    stage = again.recipe.stage
    assert again.recipe.licence == stage.recipe["licence"] == "unknown"  # of both, which came in one folder
    before = stage.model_copy(update={"recipe": stage.recipe | {"licence": ""}})
    assert again.recipe.staged(before).model_copy(update={"licence": ""}) == model.recipe and again.verify() == 0
    assert torch.equal(ours(again, text=TEXTS, steps=2), expected)
    assert again.first_stage().is_first_stage
    again.save_pretrained(tmp_path / "half", half=True)
    assert zoo.load(tmp_path / "half").verify() < 1e-3
    assert main(["sample", str(tmp_path / "mine"), "--text", "cat, dog", "--steps", "1", "-o", str(tmp_path / "out")]) == 0
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"transformers is needed .*diffusion-zoo\[interop\]"):
        zoo.load(tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"transformers is needed .*diffusion-zoo\[interop\]"):
        zoo.load(folder)


def test_the_text_encoder_is_not_trained(told):
    from zoo.contract.dataset import Items
    from zoo.contract.text import Text

    model = zoo.load(told[0])
    before = {k: v.clone() for k, v in model.denoiser.state_dict().items()}
    pictures = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    data = Items([(p, {"text": "cat"}) for p in pictures], conditions={"text": Text()})
    model.recipe = model.recipe.override({"training.batch_size": 4, "training.warmup": 0})
    zoo.fit(model, data, steps=1, preview_every=0)
    after = model.denoiser.state_dict()
    assert {k.partition(".")[0] for k in before} == {"net", "text"}
    assert all(torch.equal(v, after[k]) == k.startswith("text.") for k, v in before.items() if "conv_in" in k or "text." in k)


def test_files_as_older_versions_wrote_them(told, tmp_path):
    from safetensors.torch import load_file, save_file

    pipeline = words(tmp_path)
    expected = ours(zoo.load(told[0]), text=TEXTS, steps=2)
    path = tmp_path / "text_encoder" / "model.safetensors"
    old = {f"text_model.{k}": v for k, v in load_file(path).items()}
    save_file(old | {"text_model.embeddings.position_ids": torch.arange(LENGTH)[None]}, path)
    change(tmp_path, "text_encoder/config.json", dtype=..., torch_dtype="float32", architectures=["CLIPTextModel"], dropout=0.0)
    folder = tmp_path / "tokenizer"
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(TOKENS)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    marked = {
        "content": START, "__type": "AddedToken", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False
    }  # fmt: skip
    config = {
        "add_prefix_space": False, "bos_token": marked, "do_lower_case": True, "eos_token": END, "errors": "replace",
        "model_max_length": LENGTH, "name_or_path": "openai/clip", "tokenizer_class": "CLIPTokenizer", "unk_token": END,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json has no 'pad_token'"):
        zoo.load(tmp_path)
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": END}))
    pipeline.vae.register_to_config(scaling_factor=0.18215)
    for key in ("scaling_factor", "use_quant_conv", "shift_factor", "latents_mean", "mid_block_add_attention"):
        change(tmp_path, "vae/config.json", **{key: ...})
    assert torch.equal(ours(zoo.load(tmp_path), text=TEXTS, steps=2), expected)


def test_what_looks_at_finished_pictures_is_left_out_and_said(told, tmp_path):
    words(tmp_path)
    change(tmp_path, "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    with pytest.raises(CheckpointError, match="code of the repository"):
        zoo.load(tmp_path)
    change(tmp_path, "model_index.json", safety_checker=["transformers", "CLIPModel"], requires_safety_checker=True)
    with pytest.warns(UserWarning, match="its safety_checker is left out"):
        model = zoo.load(tmp_path)
    assert "Its safety_checker is left out." in model.recipe.description


def test_code_in_a_folder_is_never_run(tmp_path):
    words(tmp_path)
    trap = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n"
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler", "pipeline"):
        (tmp_path / f"{part}.py").write_text(trap)
        if part != "pipeline":
            (tmp_path / part / f"{part}.py").write_text(trap)
            (tmp_path / part / "__init__.py").write_text(trap)
    change(tmp_path, "text_encoder/config.json", auto_map={"AutoModel": "text_encoder.Mine"})
    with pytest.raises(CheckpointError, match="auto_map="):
        zoo.load(tmp_path)
    change(tmp_path, "text_encoder/config.json", auto_map=...)
    zoo.load(tmp_path)
    assert not list(tmp_path.rglob("*.ran"))


def test_a_text_encoder_that_is_a_pickle_is_refused_before_anything_is_fetched(tmp_path):
    words(tmp_path)
    names = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()]
    wanted = files_of(names)
    assert {"text_encoder/model.safetensors", "tokenizer/tokenizer.json", "vae/diffusion_pytorch_model.safetensors"} <= set(
        wanted
    )
    assert "tokenizer/merges.txt" in files_of([*names, "tokenizer/merges.txt", "v1-5.safetensors"])
    assert "v1-5.safetensors" not in files_of([*names, "v1-5.safetensors"])
    pickled = [n.replace("text_encoder/model.safetensors", "text_encoder/pytorch_model.bin") for n in names]
    with pytest.raises(CheckpointError, match=r"text_encoder/pytorch_model\.bin of this repository are a pickle"):
        files_of(pickled)
    parts = ["vae/diffusion_pytorch_model-00001-of-00002.bin", "vae/diffusion_pytorch_model-00002-of-00002.bin"]
    with pytest.raises(CheckpointError, match=r"vae/diffusion_pytorch_model-00001-of-00002\.bin of this repository"):
        files_of([*(n for n in names if not n.startswith("vae/diff")), *parts])
    path = tmp_path / "text_encoder" / "model.safetensors"
    path.rename(path.with_name("pytorch_model.bin"))
    with pytest.raises(
        CheckpointError, match=r"is a pickle.*from transformers import CLIPTextModel; CLIPTextModel\.from_pretr"
    ):
        zoo.load(tmp_path)


INDEX, UNET, VAE = "model_index.json", "unet/config.json", "vae/config.json"
TEXT, TOKENIZER, VOCABULARY = "text_encoder/config.json", "tokenizer/tokenizer_config.json", "tokenizer/tokenizer.json"


@pytest.mark.parametrize(
    ("name", "keys", "match"),
    [
        (INDEX, {"_class_name": "StableDiffusionInpaintPipeline"}, r"StableDiffusionInpaintPipeline .*On latents: StableDiff"),
        (INDEX, {"tokenizer": ...}, r"a StableDiffusionPipeline without tokenizer"),
        (INDEX, {"image_encoder": ["transformers", "CLIPVisionModel"]}, r"not supported: image_encoder"),
        (
            INDEX,
            {"text_encoder": ["transformers", "T5EncoderModel"]},
            r"its text_encoder is a T5EncoderModel; supported: CLIPT",
        ),
        (INDEX, {"vae": ["diffusers", "AutoencoderTiny"]}, r"its vae is a AutoencoderTiny; supported: AutoencoderKL"),
        (INDEX, {"unet": ["mine", "UNet"]}, r"its unet is UNet of mine, which is code of the repository"),
        (INDEX, {"wobble": 3}, r"options of a StableDiffusionPipeline that zoo does not know: wobble=3"),
        ("scheduler/scheduler_config.json", {"wobble": 3}, r"options of a DDIMScheduler that zoo does not know: wobble=3"),
        ("scheduler/scheduler_config.json", {"_class_name": "LMSDiscreteScheduler"}, r"LMSDiscreteScheduler"),
        (UNET, {"wobble": 3}, r"options of a UNet2DConditionModel that zoo does not know: wobble=3"),
        (UNET, {"norm_eps": ...}, r"has no key 'norm_eps'"),
        (UNET, {"in_channels": 9}, r"in_channels=9, .*latents of its autoencoder have 4"),
        (UNET, {"cross_attention_dim": 32}, r"cross_attention_dim=32, and its text encoder has hidden_size=16"),
        (UNET, {"addition_embed_type": "text_time"}, r"addition_embed_type='text_time'.* is not supported"),
        (UNET, {"class_embed_type": "timestep"}, r"class_embed_type='timestep'.* is not supported"),
        (UNET, {"flip_sin_to_cos": "no"}, r"flip_sin_to_cos='no' .*true or false"),
        (UNET, {"sample_size": [8, 16]}, r"sample_size=\[8, 16\]; zoo has square latents"),
        (UNET, {"sample_size": None}, r"sample_size=None; zoo has square latents"),
        (UNET, {"layers_per_block": 2}, r"does not fit its config.json: missing"),
        (UNET, {"block_out_channels": [8, 4096]}, r"do not belong together|describes a"),
        (UNET, {"down_block_types": ["CrossAttnDownBlock2D", "Down"]}, r"describes a model that cannot be built"),
        (VAE, {"wobble": 3}, r"options of a AutoencoderKL that zoo does not know: wobble=3"),
        (VAE, {"latent_channels": ...}, r"has no key 'latent_channels'"),
        (VAE, {"latents_mean": [0.0] * 4}, r"latents_mean=.* is not supported"),
        (VAE, {"scaling_factor": 0}, r"scaling_factor=0 .*above 0"),
        (VAE, {"in_channels": 4}, r"in_channels=4, out_channels=3; pictures have"),
        (VAE, {"block_out_channels": [8, 16]}, r"has shape"),
        (TEXT, {"wobble": 3}, r"options of a CLIPTextModel that zoo does not know: wobble=3"),
        (TEXT, {"hidden_act": ...}, r"has no key 'hidden_act'"),
        (TEXT, {"model_type": "bert"}, r"model_type='bert'"),
        (TEXT, {"vocab_size": 20}, r"of 20, and its tokenizer gives 12 of"),
        (TEXT, {"num_attention_heads": 3}, r"CLIPTextModel of transformers"),
        (TEXT, {"num_hidden_layers": 1}, r"does not fit its config.json: unexpected text\.encoder\.layers\.1"),
        (TOKENIZER, {"wobble": 3}, r"options of a CLIPTokenizer that zoo does not know: wobble=3"),
        (TOKENIZER, {"model_max_length": ...}, r"has no key 'model_max_length'"),
        (TOKENIZER, {"model_max_length": 10**30}, r"it must be a whole number from 2 to 4,096"),
        (TOKENIZER, {"model_max_length": 13}, r"12 tokens of .* tokenizer gives 13"),
        (TOKENIZER, {"tokenizer_class": "BertTokenizer"}, r"tokenizer_class='BertTokenizer'"),
        (TOKENIZER, {"added_tokens_decoder": {"999": {"content": "<cat-toy>"}}}, r"tokens of its own, <cat-toy>"),
        (TOKENIZER, {"bos_token": "<s>"}, r"its vocabulary has no '<s>'"),
        (VOCABULARY, {"model": {"type": "WordPiece"}}, r"is not the vocabulary of a CLIPTokenizer"),
    ],
    ids=str,
)
def test_what_is_wrong_or_unknown_is_named(told, tmp_path, name, keys, match):
    import shutil

    folder = tmp_path / "theirs"
    shutil.copytree(told[0], folder)
    change(folder, name, **keys)
    with pytest.raises((CheckpointError, ConfigError), match=match):
        zoo.load(folder)


def test_missing_files_are_named(told, tmp_path):
    import shutil

    for name in (
        "vae/diffusion_pytorch_model.safetensors", "unet/config.json", "text_encoder/model.safetensors", VOCABULARY, TOKENIZER
    ):  # fmt: skip
        folder = tmp_path / name.replace("/", "-")
        shutil.copytree(told[0], folder)
        (folder / name).unlink()
        with pytest.raises(CheckpointError, match="missing"):
            zoo.load(folder)
