"""What the authors' own nets and samplers say, as small files for the tests of CI, which lacks these packages.

    python benchmarks/interop_goldens.py --guided-diffusion DIR --improved-diffusion DIR --k-diffusion DIR --edm DIR
    python benchmarks/interop_goldens.py --genie DIR
    PYTHONPATH=SIT python benchmarks/interop_goldens.py --sit DIR
    PYTHONPATH=PEER python benchmarks/interop_goldens.py --foldingdiff DIR
    python benchmarks/interop_goldens.py            # measures ours against what is stored: a table of docs/interop.md

Each DIR is a checkout of the sources: openai/guided-diffusion at 22e0df8, openai/improved-diffusion at 1bc7bbb,
crowsonkb/k-diffusion at 4601bf0 (which needs `pip install jsonmerge`), NVlabs/edm at 008a4e5, microsoft/foldingdiff at 18c8653,
aqlaboratory/genie at 42e4c99, willisma/SiT at 947f95b. `STUBS` stand for what they import and do not need here. Leave out those
whose files are to stay. FoldingDiff needs a BERT with relative positions, which transformers 5 has not, and pandas: PEER is a
folder of `pip install --target PEER --no-deps transformers==4.38.2 tokenizers==0.15.2 huggingface_hub==0.36.2 regex`. SIT is
one of `pip install --target SIT --no-deps timm==1.0.31 torchdiffeq==0.2.5`.

Weights are not stored: `weights` makes them of a tensor's name and shape alone, none of them zero, so that layers which their
authors start at zero count, too. A file of tests/interop/goldens holds the shapes of a state by its own names, the net's
answers, and samples, for which the authors' samplers draw the noise that ours does under `SEED`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock, patch

import convert_pickle
import numpy as np
import torch
import torch.nn.functional as F
from pages import fill as fill_page
from torch import Tensor

import zoo
from zoo import files
from zoo.core import seeds
from zoo.core.circle import wrapped
from zoo.core.schedule import Level
from zoo.interop.converted import FORMAT, OPTIONS

PAGE = Path(__file__).parents[1] / "docs" / "interop.md"
FOLDER = Path(__file__).parents[1] / "tests" / "interop" / "goldens"
STUBS = (
    "mpi4py", "blobfile", "clip", "cleanfid", "cleanfid.inception_torchscript", "torchsde", "torchdiffeq", "kornia", "dctorch",
    "biotite", "biotite.sequence", "biotite.structure", "biotite.structure.io", "biotite.structure.io.pdb", "seaborn",
)  # fmt: skip
COMMITS = {
    "guided-diffusion": "22e0df8",
    "improved-diffusion": "1bc7bbb",
    "k-diffusion": "4601bf0",
    "edm": "008a4e5",
    "foldingdiff": "18c8653",
    "genie": "42e4c99",
    "sit": "947f95b",
}
#: of a net, what it is inside its preconditioning, and what it says of no label; all else that is stored are samples
ANSWERS = {"out", "denoised", "unlabelled"}
#: samples, and the seed of their noise
N, SEED = 2, 3
#: options that a line of the table says beside those that are true
SHOWN = ("noise_schedule", "diffusion_steps", "patch_size", "model_type", "encoder_type", "embedding_type", "label_dim")
#: buffers that are constants of the architecture, and no weights
CONSTANT = ("kernel", "resample_filter", "position_ids", "pos_embed")

#: flags of guided-diffusion: (package, flags, what is sampled: (name, timestep_respacing, whether DDIM))
GUIDED: dict[str, Any] = {
    "guided-learned": (
        "guided-diffusion",
        {
            "image_size": 8, "num_channels": 32, "channel_mult": "1,2", "num_res_blocks": 1, "num_head_channels": 16,
            "attention_resolutions": "4", "class_cond": True, "learn_sigma": True, "noise_schedule": "cosine",
            "resblock_updown": True, "use_scale_shift_norm": True, "use_new_attention_order": True, "dropout": 0.1,
        },
        [("ddpm", "25", False), ("ddim", "ddim10", True)],
    ),
    "guided-plain": (
        "guided-diffusion",
        {
            "image_size": 8, "num_channels": 32, "channel_mult": "1,1,2", "num_res_blocks": 2, "num_heads": 2,
            "num_heads_upsample": 4, "attention_resolutions": "8,2", "class_cond": False, "learn_sigma": False,
            "noise_schedule": "linear", "use_scale_shift_norm": False, "diffusion_steps": 24,
            "rescale_timesteps": True,
        },
        [("ddpm", "", False), ("ddim", "12", True)],
    ),
    "improved-learned": (
        "improved-diffusion",
        {
            "image_size": 32, "num_channels": 32, "num_res_blocks": 1, "num_heads": 4, "learn_sigma": True,
            "noise_schedule": "cosine", "diffusion_steps": 4000, "attention_resolutions": "16,8", "predict_xstart": True,
        },
        [("ddpm", "6", False)],
    ),
}  # fmt: skip
_DATASET = {"type": "imagefolder", "location": "data"}
#: configs of k-diffusion
KARRAS: dict[str, Any] = {
    "k-augmented": {
        "model": {
            "type": "image_v1", "input_channels": 3, "input_size": [8, 8], "patch_size": 1, "mapping_out": 32,
            "depths": [1, 2], "channels": [32, 128], "self_attn_depths": [False, True], "has_variance": False,
            "loss_config": "karras", "loss_weighting": "soft-min-snr", "dropout_rate": 0.0, "augment_wrapper": True,
            "augment_prob": 0.12, "sigma_data": 0.5, "sigma_min": 1e-2, "sigma_max": 80,
            "sigma_sample_density": {"type": "cosine-interpolated"},
        },
        "dataset": _DATASET,
    },
    "k-patched": {
        "model": {
            "type": "image_v1", "input_channels": 1, "input_size": [16, 16], "patch_size": 2, "mapping_out": 32,
            "depths": [2, 1, 1], "channels": [32, 64, 64], "self_attn_depths": [False, False, False], "has_variance": True,
            "dropout_rate": 0.1, "augment_wrapper": False, "sigma_data": 0.6162, "sigma_min": 2e-2, "sigma_max": 40,
            "sigma_sample_density": {"type": "lognormal", "mean": -1.2, "std": 1.2},
        },
        "dataset": _DATASET,
    },
}  # fmt: skip
_EDM = {"label_dim": 0, "augment_dim": 9, "channel_mult_emb": 2, "dropout": 0.1}
#: options of EDMPrecond and its nets
EDM: dict[str, Any] = {
    "edm-song": _EDM
    | {
        "model_type": "SongUNet", "img_resolution": 8, "img_channels": 3, "label_dim": 5, "model_channels": 16,
        "channel_mult": [2, 2], "num_blocks": 1, "attn_resolutions": [4], "embedding_type": "positional",
        "encoder_type": "standard", "decoder_type": "standard", "channel_mult_noise": 1, "resample_filter": [1, 1],
    },
    "edm-residual": _EDM
    | {
        "model_type": "SongUNet", "img_resolution": 16, "img_channels": 1, "model_channels": 16, "channel_mult": [1, 2, 2],
        "num_blocks": 1, "attn_resolutions": [8], "embedding_type": "fourier", "encoder_type": "residual",
        "decoder_type": "standard", "channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1],
    },
    "edm-dhariwal": _EDM
    | {
        "model_type": "DhariwalUNet", "img_resolution": 8, "img_channels": 3, "label_dim": 7, "augment_dim": 0,
        "model_channels": 64, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4], "sigma_data": 0.6,
    },
}  # fmt: skip
_BERT = {
    "attention_probs_dropout_prob": 0.1, "classifier_dropout": None, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02, "layer_norm_eps": 1e-12, "model_type": "bert", "pad_token_id": 0,
    "transformers_version": "4.11.3", "type_vocab_size": 2, "use_cache": False, "vocab_size": 30522,
}  # fmt: skip
_TRAINED = {
    "angles_definitions": "canonical-full-angles", "min_seq_len": 10, "trim_strategy": "randomcrop", "variance_scale": 1.0,
    "gradient_clip": 1.0, "batch_size": 64, "lr": 5e-05, "loss": "smooth_l1", "l2_norm": 0.0, "l1_norm": 0.0, "circle_reg": 0.0,
    "min_epochs": 20, "max_epochs": 20, "early_stop_patience": 0, "lr_scheduler": "LinearWarmup", "use_swa": False,
    "subset": None, "exhaustive_validation_t": False, "syn_noiser": "", "single_angle_debug": -1,
    "single_timestep_debug": False, "cpu_only": False, "ngpu": -1, "write_valid_preds": False, "dryrun": True,
    "multithread": True, "dropout_p": 0.1,
}  # fmt: skip
#: FoldingDiff: (config.json, training_args.json)
FOLDING: dict[str, Any] = {
    "folding-relative": (
        _BERT
        | {
            "hidden_size": 24, "intermediate_size": 32, "num_attention_heads": 3, "num_hidden_layers": 2,
            "max_position_embeddings": 24, "position_embedding_type": "relative_key",
        },
        _TRAINED
        | {
            "max_seq_len": 24, "timesteps": 100, "variance_schedule": "cosine", "time_encoding": "gaussian_fourier",
            "decoder": "mlp", "position_embedding_type": "relative_key", "hidden_size": 24, "intermediate_size": 32,
            "num_heads": 3, "num_hidden_layers": 2, "zero_center": True,
        },
    ),
    "folding-both": (
        _BERT
        | {
            "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1,
            "max_position_embeddings": 20, "position_embedding_type": "relative_key_query", "hidden_act": "relu",
        },
        _TRAINED
        | {
            "max_seq_len": 20, "timesteps": 30, "variance_schedule": "quadratic", "time_encoding": "sinusoidal",
            "decoder": "linear",
        },
    ),
    "folding-absolute": (
        _BERT
        | {
            "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4, "num_hidden_layers": 2,
            "max_position_embeddings": 20, "position_embedding_type": "absolute", "layer_norm_eps": 1e-6,
        },
        _TRAINED
        | {
            "max_seq_len": 20, "timesteps": 50, "variance_schedule": "linear", "time_encoding": "sinusoidal",
            "decoder": "mlp",
        },
    ),
}  # fmt: skip
_GENIE = {
    "name": "tiny", "maximumNumResidues": 24, "singleFeatureDimension": 16, "pairFeatureDimension": 8,
    "positionalEmbeddingDimension": 12, "timestepEmbeddingDimension": 10, "relativePositionK": 6,
    "triangularMultiplicativeHiddenDimension": 12, "triangularAttentionHiddenDimension": 6, "triangularAttentionNumHeads": 2,
    "pairTransitionN": 2, "numPairTransformLayers": 2, "numStructureLayers": 2, "ipaHiddenDimension": 5, "ipaNumHeads": 3,
    "ipaNumQkPoints": 2, "ipaNumVPoints": 4, "batchSize": 4, "learningRate": "1e-4",
}  # fmt: skip
#: configurations of Genie
GENIE: dict[str, Any] = {
    "genie-cosine": _GENIE | {"numTimesteps": 40},
    "genie-attention": _GENIE
    | {
        "numTimesteps": 30, "schedule": "linear", "includeTriangularAttention": True, "numStructureBlocks": 2,
        "numStructureTransitionLayers": 2, "numPairTransformLayers": 1,
    },
    "genie-plain": _GENIE
    | {
        "numTimesteps": 20, "includeTriangularMultiplicativeUpdate": False, "numPairTransformLayers": 1,
        "relativePositionK": 30,
    },
    "genie-bare": _GENIE | {"numTimesteps": 20, "numPairTransformLayers": 0, "numStructureTransitionLayers": 0},
}  # fmt: skip
_SIT = {"input_size": 8, "patch_size": 2, "in_channels": 4, "hidden_size": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
#: options of the net of SiT
SIT: dict[str, Any] = {
    "sit-spare": _SIT | {"learn_sigma": True},
    "sit-plain": _SIT | {"learn_sigma": False, "patch_size": 4, "depth": 1},
}
#: points of SiT's Euler, which makes a step between two of them
POINTS = 11
#: residues of the chains that are sampled, and means of the angles in radians
LENGTHS, MEANS = (19, 12), (-1.47, 0.04, 3.13, 1.94, 2.03, 2.12)
#: scales of the noise of each step of Genie's sampler
GENIE_SCALES = (0.6, 1.0)
#: in what they are sampled. The first step of the cosine betas multiplies all roundings by 100, and nets of random weights let
#: them grow: in float32 theirs is off from its own float64 by more than a radian in the end
PRECISIONS = {"cosine": (torch.float64,)} | dict.fromkeys(("linear", "quadratic"), (torch.float32, torch.float64))
SAMPLERS = {"euler": "sample_euler", "heun": "sample_heun", "dpmpp": "sample_dpmpp_2m"}
STEPS = 10


def weights(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Random tensors of these shapes, each by its own name; numpy keeps the numbers of this generator for ever."""
    found = {}
    for name, shape in shapes.items():
        drawn = np.random.RandomState(zlib.crc32(f"{seed} {name}".encode())).standard_normal(shape)
        if len(shape) > 1:
            drawn = drawn / np.sqrt(np.prod(shape[1:]))
        elif name.endswith("weight"):  # of a norm
            drawn = 1 + 0.1 * drawn
        elif name == "time_embed.W":  # frequencies of FoldingDiff, as it draws them
            drawn = 2 * np.pi * drawn
        elif not name.endswith("freqs"):
            drawn = 0.1 * drawn
        found[name] = torch.from_numpy(drawn.astype(np.float32))
    return found


class Noise:
    """What a sampler draws: x_T first, then the noise of each step, as `model.sample` does under `SEED`."""

    def __init__(self, sizes: Sequence[int] | None = None) -> None:
        self.rng = seeds.SampleRng(SEED, range(N), sizes)

    def __call__(self, like: Tensor) -> Tensor:
        return self.rng.normal(like)


def fill(net: torch.nn.Module) -> dict[str, Tensor]:
    """Give a net of theirs the weights of `weights`; returns what of its state is constant."""
    own = net.state_dict()
    constant = {k: v for k, v in own.items() if k.endswith(CONSTANT)}
    made = weights({k: tuple(v.shape) for k, v in own.items() if k not in constant})
    net.load_state_dict(made | constant)
    net.eval()
    return constant


def inputs(shape: tuple[int, ...], labels: int) -> tuple[Tensor, Tensor | None]:
    """x (3,*shape), and labels where the net has some."""
    x = torch.from_numpy(np.random.RandomState(1).standard_normal((3, *shape)).astype(np.float32))
    return x, torch.tensor([0, labels - 1, labels // 2]) if labels else None


def store(name: str, package: str, config: Any, net: torch.nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Write NAME.json and NAME.safetensors."""
    constant = fill(net)
    about = {
        "package": package,
        "commit": COMMITS[package],
        "torch": torch.__version__.split("+")[0],
        "config": config,
        "state": {k: list(v.shape) for k, v in net.state_dict().items()},
    }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(about, separators=(",", ":")) + "\n", encoding="utf-8")
    files.save_tensors(FOLDER / f"{name}.safetensors", {**{f"state.{k}": v for k, v in constant.items()}, **tensors})
    print(name, {k: f"{float(v.std()):.2f}" for k, v in tensors.items()})


def importable(source: Path) -> None:
    """Let a package be imported from its sources, without what of others it does not need here."""
    sys.path.insert(0, str(source))
    for stub in STUBS:
        if stub not in sys.modules:
            sys.modules[stub] = MagicMock()


@torch.no_grad()
def guided(name: str, package: str, flags: Mapping[str, Any], runs: list[Any]) -> None:
    module = package.replace("-", "_")
    util = importlib.import_module(f"{module}.script_util")
    flags = util.model_and_diffusion_defaults() | dict(flags)
    net, _ = util.create_model_and_diffusion(**flags)
    fill(net)
    labels = util.NUM_CLASSES if flags["class_cond"] else 0
    shape = (3, flags["image_size"], flags["image_size"])
    x, y = inputs(shape, labels)
    t = torch.tensor([0, flags["diffusion_steps"] // 2, flags["diffusion_steps"] - 1])
    scale = 1000 / flags["diffusion_steps"] if flags["rescale_timesteps"] else 1
    found = {"out": net(x, t * scale, *([] if y is None else [y]))}
    told = {"y": torch.tensor([0, labels - 1])} if labels else {}
    for sampler, respacing, ddim in runs:
        _, diffusion = util.create_model_and_diffusion(**flags | {"timestep_respacing": respacing})
        noise = Noise()
        start = noise(torch.zeros(N, *shape))
        loop = diffusion.ddim_sample_loop if ddim else diffusion.p_sample_loop
        with patch("torch.randn_like", noise):
            found[f"{sampler} {respacing}"] = loop(net, (N, *shape), noise=start, model_kwargs=told)
    store(name, package, flags, net, found)


@torch.no_grad()
def karras(name: str, config: Mapping[str, Any]) -> None:
    package = importlib.import_module("k_diffusion")
    whole = package.config.load_config(dict(config))
    net, model = package.config.make_model(whole), whole["model"]
    fill(net)
    shape = (model["input_channels"], *model["input_size"])
    denoiser = package.Denoiser(net, sigma_data=model["sigma_data"])
    x, _ = inputs(shape, 0)
    sigma = torch.tensor([model["sigma_min"], 1.0, model["sigma_max"]])
    found = {"out": net(x, sigma), "denoised": denoiser(x * sigma[:, None, None, None], sigma)}
    sigmas = package.sampling.get_sigmas_karras(STEPS, model["sigma_min"], model["sigma_max"])
    for ours, theirs in SAMPLERS.items():
        start = Noise()(torch.zeros(N, *shape)) * model["sigma_max"]
        found[ours] = getattr(package.sampling, theirs)(denoiser, start, sigmas, disable=True)
    store(name, "k-diffusion", config, net, found)


@torch.no_grad()
def edm(name: str, options: Mapping[str, Any]) -> None:
    convert = importlib.import_module("convert_edm")
    networks = importlib.import_module("training.networks")
    sampler = importlib.import_module("generate").edm_sampler
    net = networks.EDMPrecond(**options)
    fill(net)
    shape = (options["img_channels"], options["img_resolution"], options["img_resolution"])
    x, label = inputs(shape, options["label_dim"])
    sigma = torch.tensor([0.002, 1.0, 80.0])
    named = None if label is None else torch.eye(options["label_dim"])[label]
    found = {"out": net.model(x, sigma.log() / 4, named), "denoised": net(x * sigma[:, None, None, None], sigma, named)}
    if label is not None:  # which is what their preconditioning makes of no label
        found["unlabelled"] = net.model(x, sigma.log() / 4, torch.zeros(1, options["label_dim"]))
    named = None if label is None else torch.eye(options["label_dim"])[[0, -1]]
    found["heun"] = sampler(net, Noise()(torch.zeros(N, *shape)), named, num_steps=STEPS).float()
    store(name, "edm", convert.options_of(net), net, found)


def folding_inputs(steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """x (3,N,6), times (3,) and the mask (3,N) of what their net is asked."""
    x, _ = inputs((max(LENGTHS), 6), 0)
    mask = torch.arange(max(LENGTHS)) < torch.tensor([[LENGTHS[0]], [LENGTHS[1]], [LENGTHS[0]]])
    return x, torch.tensor([0, steps // 2, steps - 1]), mask


def folding_results(
    folder: Path, bert: Mapping[str, Any], trained: Mapping[str, Any], state: Mapping[str, Tensor], **changed: Any
) -> Path:
    """A folder of results as their training writes it.

    Args:
        changed: options, of config.json where it has them; None leaves one out.
    """
    models = folder / "models" / "best_by_valid"
    models.mkdir(parents=True)
    for file, data in ((files.CONFIG, bert), ("training_args.json", trained)):
        own = {k: v for k, v in changed.items() if (k in bert) == (data is bert)}
        kept = {k: v for k, v in (dict(data) | own).items() if k not in own or v is not None}
        (folder / file).write_text(json.dumps(kept), encoding="utf-8")
    np.save(folder / "training_mean_offset.npy", np.array(MEANS))
    held = {"epoch": 19, "global_step": 1840, "pytorch-lightning_version": "1.6.4", "state_dict": dict(state), "loops": {}}
    torch.save(held, models / "epoch=19-step=1840.ckpt")
    worse = held | {"state_dict": {k: v + 1 if v.is_floating_point() else v for k, v in state.items()}}
    torch.save(worse, models / "epoch=7-step=700.ckpt")
    return folder


@torch.no_grad()
def folding(name: str, bert: Mapping[str, Any], trained: Mapping[str, Any]) -> None:
    pandas = importlib.import_module("pandas")
    lightning = ModuleType("pytorch_lightning")
    lightning.LightningModule, lightning.utilities = object, MagicMock()  # type: ignore[attr-defined]
    sys.modules["pytorch_lightning"] = lightning
    theirs = {
        k: importlib.import_module(f"foldingdiff.{k}") for k in ("modelling", "datasets", "sampling", "angles_and_coords")
    }
    with tempfile.TemporaryDirectory() as home:  # a folder as they write it, which they read themselves
        place = folding_results(Path(home) / "results", bert, trained, {})
        net = theirs["modelling"].BertForDiffusionBase.from_dir(str(place), load_weights=False)
        empty = theirs["datasets"].AnglesEmptyDataset.from_dir(str(place))
    noised = theirs["datasets"].NoisedAnglesDataset(
        empty, timesteps=trained["timesteps"], beta_schedule=trained["variance_schedule"]
    )
    fill(net)
    x, t, mask = folding_inputs(trained["timesteps"])
    found = {"out": net(x, t, attention_mask=mask.float()) * mask[:, :, None]}
    for dtype in PRECISIONS[trained["variance_schedule"]]:
        empty.sample_length = iter(LENGTHS).__next__
        noise, kept = Noise(LENGTHS), noised.alpha_beta_terms["betas"]
        noised.alpha_beta_terms["betas"] = kept.to(dtype)
        with patch("torch.randn_like", lambda like, noise=noise, dtype=dtype: noise(like.to(dtype))):
            made = theirs["sampling"].sample(net.to(dtype), noised, n=N, sweep_lengths=None, disable_pbar=True)
        noised.alpha_beta_terms["betas"] = kept
        atoms: list[Any] = []
        theirs["angles_and_coords"].write_coords_to_pdb = lambda found, file, atoms=atoms: atoms.append(found)
        for i, steps in enumerate(made):
            frame = pandas.DataFrame(steps[-1], columns=noised.feature_names["angles"])
            theirs["angles_and_coords"].create_new_chain_nerf("none.pdb", frame)
            found[f"angles {i} {dtype}"] = torch.from_numpy(steps[-1])
            found[f"atoms {i} {dtype}"] = torch.from_numpy(atoms[i]).view(-1, 3, 3)
    net.float()
    store(name, "foldingdiff", {"bert": bert, "trained": trained}, net, found)


def genie_inputs(config: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """x (2,N,3) in angstrom, times (2,) and the mask (2,N) of what their net is asked: chains of `LENGTHS`, then padding."""
    longest, steps = config["maximumNumResidues"], config["numTimesteps"]
    mask = torch.arange(longest) < torch.tensor(LENGTHS)[:, None]
    x = torch.from_numpy(np.random.RandomState(1).standard_normal((2, longest, 3)).astype(np.float32)).cumsum(1)
    return 2 * x * mask[:, :, None], torch.tensor([steps - 1, steps // 3]), mask


def genie_run(folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor], **changed: Any) -> Path:
    """A folder of a run as their training writes it; its latest checkpoint is the one that counts.

    Args:
        changed: options of the configuration; None leaves one out.
    """
    said = {k: v for k, v in (dict(config) | changed).items() if v is not None}
    for version, epochs in ((0, (99,)), (1, (9, 49))):
        place = folder / f"version_{version}" / "checkpoints"
        place.mkdir(parents=True)
        for epoch in epochs:
            last = (version, epoch) == (1, 49)
            own = {f"model.{k}": v if last else v + 1 for k, v in state.items()}
            held = {"epoch": epoch, "global_step": 3, "pytorch-lightning_version": "1.8.4", "state_dict": own, "loops": {}}
            torch.save(held, place / f"epoch={epoch}.ckpt")
    (folder / "configuration").write_text("".join(f"{k} {v}\n" for k, v in said.items()), encoding="utf-8")
    return folder


@torch.no_grad()
def genie(name: str, config: Mapping[str, Any]) -> None:
    lightning, core = ModuleType("pytorch_lightning"), ModuleType("pytorch_lightning.core")
    plain = type("LightningModule", (torch.nn.Module,), {"device": torch.device("cpu")})
    core.LightningModule = plain  # type: ignore[attr-defined]
    sys.modules |= {"pytorch_lightning": lightning, "pytorch_lightning.core": core}
    theirs = {k: importlib.import_module(f"genie.{k}") for k in ("config", "diffusion.genie", "utils.affine_utils")}
    frames = importlib.import_module("genie.utils.geo_utils").compute_frenet_frames
    with tempfile.TemporaryDirectory() as home:  # a file as they write it, which they read themselves
        own = theirs["config"].Config(genie_run(Path(home) / "run", config, {}) / "configuration")
    process = theirs["diffusion.genie"].Genie(own)
    fill(process.model)
    process.eval()
    x, t, mask = genie_inputs(config)
    moved = process.model(theirs["utils.affine_utils"].T(frames(x, mask.float()), x), t, mask.float())
    found = {"out": (x - moved.trans) * mask[:, :, None]}
    for scale in GENIE_SCALES:
        # drawn before theirs runs, since ours draws with the functions that are patched; padded to the longest chain of the
        # training, of which a place in a chain is a share
        noise, more = Noise(LENGTHS), (0, 0, 0, config["maximumNumResidues"] - max(LENGTHS))
        made = [F.pad(noise(torch.zeros(N, max(LENGTHS), 3)), more) for _ in range(config["numTimesteps"])]
        drawn = iter(made)
        with patch("torch.randn", lambda *_, d=drawn: next(d)), patch("torch.randn_like", lambda _, d=drawn: next(d)):
            last = process.p_sample_loop(mask.float(), scale, verbose=False)[-1].trans
        for i, size in enumerate(LENGTHS):
            found[f"ca {i} {scale}"] = last[i, :size]
    store(name, "genie", config, process.model, found)


@torch.no_grad()
def sit(name: str, options: Mapping[str, Any]) -> None:
    for stub in ("torchdiffeq", "torchdiffeq._impl"):
        sys.modules.pop(stub, None)
    net = importlib.import_module("models").SiT(**options)
    transport = importlib.import_module("transport")
    fill(net)
    shape = (options["in_channels"], options["input_size"], options["input_size"])
    x, label = inputs(shape, options["num_classes"])
    found = {"out": net(x, torch.tensor([0.0, 0.37, 1.0]), label)}
    found["unlabelled"] = net(x, torch.tensor([0.0, 0.37, 1.0]), torch.full_like(label, options["num_classes"]))
    sampler = transport.Sampler(transport.create_transport("Linear", "velocity"))
    sample = sampler.sample_ode(sampling_method="euler", num_steps=POINTS)
    told = torch.tensor([0, options["num_classes"] - 1])
    found["euler"] = sample(Noise()(torch.zeros(N, *shape)), net.forward, y=told)[-1]
    store(name, "sit", options, net, found)


def autoencoder(folder: Path, size: int = 16) -> Path:
    """A small autoencoder of 4 channels at half the side of pictures, as diffusers writes it; returns its folder."""
    diffusers = importlib.import_module("diffusers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = diffusers.AutoencoderKL(
            block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4, sample_size=size,
            up_block_types=("UpDecoderBlock2D",) * 2, scaling_factor=0.5,
        )  # fmt: skip
    net.save_pretrained(folder)
    return folder


class Golden:
    """A stored case.

    Attributes:
        package, commit, config: whose it is, and flags, config or options of the net.
        state: the weights, by the names of its authors.
        said: what their net and samplers gave.
    """

    def __init__(self, name: str) -> None:
        about = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        stored = files.load_tensors(FOLDER / f"{name}.safetensors")
        constant = {k.removeprefix("state."): v for k, v in stored.items() if k.startswith("state.")}
        self.package, self.commit, self.config = about["package"], about["commit"], about["config"]
        self.said = {k: v for k, v in stored.items() if not k.startswith("state.")}
        self.state = weights({k: tuple(v) for k, v in about["state"].items() if k not in constant}) | constant

    def words(self, **changed: Any) -> list[str]:
        """The flags of guided-diffusion as its scripts take them; None leaves one out."""
        given = self.config | changed
        return [word for k, v in given.items() if v is not None for word in (f"--{k}", str(v))]

    def converted(self, place: Path, **changed: Any) -> Path:
        """PLACE/theirs, a folder by the converter's command line, of a checkpoint as the authors' scripts save it.

        Args:
            changed: flags of guided-diffusion, or options of EDM, FoldingDiff or Genie, None for one that is left out.
        """
        if self.package == "edm":  # whose own converter needs its sources
            options = {k: v for k, v in (self.config | changed).items() if k not in changed or v is not None}
            (place / "theirs").mkdir()
            files.save_tensors(place / "theirs" / files.WEIGHTS, self.state)
            (place / "theirs" / files.CONFIG).write_text(json.dumps({FORMAT: "edm", OPTIONS: options}))
            return place / "theirs"
        if self.package == "foldingdiff":
            results = folding_results(place / "results", self.config["bert"], self.config["trained"], self.state, **changed)
            if convert_pickle.main([self.package, str(results), str(place / "theirs")]):
                raise SystemExit(1)
            return place / "theirs"
        if self.package == "genie":
            run = genie_run(place / "run", self.config, self.state, **changed)
            if convert_pickle.main([self.package, str(run), str(place / "theirs")]):
                raise SystemExit(1)
            return place / "theirs"
        if self.package == "sit":
            torch.save(self.state, place / "theirs.pt")
            words = ["--vae", str(autoencoder(place / "vae")), "--heads", str(self.config["num_heads"])]
            if convert_pickle.main([self.package, str(place / "theirs.pt"), str(place / "theirs"), *words]):
                raise SystemExit(1)
            return place / "theirs"
        held: dict[str, Any] = dict(self.state)
        if self.package == "k-diffusion":
            plain = {k: v + 1 for k, v in self.state.items()}
            held = {"model": plain, "model_ema": self.state, "config": self.config, "step": 3}
        torch.save(held, place / "theirs.pt")
        words = [] if self.package == "k-diffusion" else self.words(**changed)
        if convert_pickle.main([self.package, str(place / "theirs.pt"), str(place / "theirs"), *words]):
            raise SystemExit(1)
        return place / "theirs"

    @property
    def labels(self) -> int:
        """How many the net is told."""
        told = self.config.get("label_dim", self.config.get("num_classes", 0))
        return 1000 if self.config.get("class_cond") else int(told)

    def asked(self, model: Any) -> dict[str, Tensor]:
        """What our net says where theirs said one of `ANSWERS`."""
        if self.package == "foldingdiff":
            x, t, mask = folding_inputs(self.config["trained"]["timesteps"])
            return {"out": model.denoiser(x, t.float(), {}, mask=mask)}
        if self.package == "genie":
            x, t, mask = genie_inputs(self.config)
            return {"out": model.denoiser(x, t.float(), {}, mask=mask)}
        x, label = inputs(model.codec.shape, self.labels)
        cond = {} if label is None else {"label": label}
        if self.package == "sit":  # whose times go from noise to data, and whose velocity does
            t = 1 - torch.tensor([0.0, 0.37, 1.0])
            found = {"out": -model.diffusion.ask(model.denoiser, x, t, cond)}
            return found | {"unlabelled": -model.diffusion.ask(model.denoiser, x, t, {})}
        if "denoised" not in self.said:
            steps = self.config["diffusion_steps"]
            t = torch.tensor([0, steps // 2, steps - 1])
            out = model.diffusion.ask(model.denoiser, x, t.float(), cond)
            if not model.diffusion.learned_variance:
                return {"out": out}
            _, share = model.diffusion.denoise_both(model.denoiser, x, Level(t.double(), 1.0, 1.0), cond)
            return {"out": torch.cat([out, 2 * share - 1], 1)}
        options = self.config.get("model", {})
        sigma = torch.tensor([options.get("sigma_min", 0.002), 1.0, options.get("sigma_max", 80.0)])
        level = Level(sigma.double().log() / 4, torch.ones(3).double(), sigma.double())
        found = {"out": model.denoiser(x, level.t.float(), cond)}
        found["denoised"] = model.diffusion.denoise(model.denoiser, x * sigma[:, None, None, None], level, cond)
        if label is not None:
            found["unlabelled"] = model.denoiser(x, level.t.float(), {"label": torch.full_like(label, -1)})
        return found

    def sampled(self, model: Any, **arguments: Any) -> Tensor:
        """Encoded samples of ours under `SEED`, of the first and the last label."""
        told = {"label": [0, self.labels - 1]} if self.labels else {}
        *_, last = model.sample_iter(N, seed=SEED, **told, **arguments)
        return last.x

    def folded(self, model: Any, dtype: torch.dtype) -> dict[str, Tensor]:
        """Angles in radians and atoms in angstrom of our chains of `LENGTHS`, by the names of what is stored."""
        model = model.to(dtype=dtype)
        plan = model.plan(N, length=list(LENGTHS), seed=SEED)
        chunk = plan.chunk(range(N))
        *_, last = model.run(plan, chunk)
        found = {}
        for i, (size, chain) in enumerate(zip(LENGTHS, model.finished(last.x, chunk), strict=True)):
            found[f"angles {i} {dtype}"] = wrapped(last.x[i, :size].double() + model.codec.mean.double(), 2 * math.pi)
            found[f"atoms {i} {dtype}"] = torch.from_numpy(chain.atoms).double()
        return found

    def traced(self, model: Any, scale: float) -> dict[str, Tensor]:
        """CA of our chains of `LENGTHS` in angstrom, around their mean, by the names of what is stored."""
        *_, last = model.sample_iter(N, length=list(LENGTHS), seed=SEED, noise_scale=scale)
        return {f"ca {i} {scale}": last.x[i, :size] for i, size in enumerate(LENGTHS)}


def turned(found: Tensor, expected: Tensor) -> float:
    """The largest difference of two angles, which is half a turn at most."""
    return float(wrapped(found - expected, 2 * math.pi).abs().max())


def off(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest of what is expected (or to 1)."""
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1))


@torch.no_grad()
def measure(name: str) -> list[str]:
    """Lines of the table."""
    golden = Golden(name)
    config = golden.config.get("model", golden.config)
    said = [k if v is True else f"{k}={v}" for k, v in config.items() if v is True or k in SHOWN]
    runs = golden.said.keys() - ANSWERS
    lines = []
    for run in sorted(runs):
        sampler, _, respacing = run.partition(" ")
        guided = "diffusion_steps" in golden.config
        asking = {"sampler": sampler, "steps": STEPS} | ({"guidance_weight": 0.0} if golden.package == "sit" else {})
        changed = {"timestep_respacing": respacing, "use_ddim": sampler == "ddim"} if guided else {}
        with tempfile.TemporaryDirectory() as place:
            model = zoo.load(golden.converted(Path(place), **changed))
        asked = golden.asked(model)
        net = max(off(found, golden.said[k]) for k, found in asked.items())
        apart = off(golden.sampled(model, **({} if guided else asking)), golden.said[run])
        steps = model.recipe.sampling.steps if guided else STEPS
        lines.append(
            f"| {golden.package} {golden.commit} | {', '.join(said)} | {net:.1e} | {sampler}, {steps} steps | {apart:.1e} |"
        )
    return lines


def table() -> None:
    """Write the table of docs/interop.md."""
    rows = [line for name in (*GUIDED, *KARRAS, *EDM, *SIT) for line in measure(name)]
    head = f"Against stored answers of the authors' own code, torch {torch.__version__.split('+')[0]}, float32 on a CPU.\n\n"
    head += "| package, commit | net | net off by | sampler | samples off by |\n| --- | --- | --- | --- | --- |\n"
    fill_page(PAGE, "pickles", head + "\n".join(rows))
    print(head + "\n".join(rows))
    head = "FoldingDiff 18c8653, as above: the largest difference of angles, and of coordinates of N, CA and C.\n\n"
    head += "| net | betas, steps of ddpm | net off by | sampled in | angles off by (radians) | atoms off by (angstrom) |\n"
    head += "| --- | --- | --- | --- | --- | --- |\n" + "\n".join(line for name in FOLDING for line in measure_folding(name))
    fill_page(PAGE, "folding", head)
    print(head)
    head = "Genie 42e4c99, as above: float32, CA around their mean; deviation is that of theirs.\n\n"
    head += "| net | betas, steps of ddpm | net off by | noise_scale | deviation (angstrom) | CA off by (angstrom) |\n"
    head += "| --- | --- | --- | --- | --- | --- |\n" + "\n".join(line for name in GENIE for line in measure_genie(name))
    fill_page(PAGE, "traces", head)
    print(head)


@torch.no_grad()
def measure_genie(name: str) -> list[str]:
    """Lines of the table of Genie."""
    golden, lines = Golden(name), []
    with tempfile.TemporaryDirectory() as place:
        model = zoo.load(golden.converted(Path(place)))
    net, c = off(golden.asked(model)["out"], golden.said["out"]), model.recipe.net
    parts = [k for k, there in (("triangle products", "include_mul_update"), ("attention", "include_tri_att")) if c[there]]
    layers = f"{c['n_pair_transform_layer']} pair layers"
    if c["n_pair_transform_layer"]:
        layers += f" ({', '.join(parts) or 'transition'})"
    layers += f", {c['n_structure_block']} x {c['n_structure_layer']} of structure"
    for scale in GENIE_SCALES:
        found = golden.traced(model, scale)
        wanted = {k: golden.said[k] - golden.said[k].mean(0) for k in found}
        apart = max(float((v - wanted[k]).abs().max()) for k, v in found.items())
        size = max(float(v.std()) for v in wanted.values())
        betas = f"{golden.config.get('schedule', 'cosine')}, {golden.config['numTimesteps']}"
        lines.append(f"| {layers} | {betas} | {net:.1e} | {scale} | {size:.1f} | {apart:.1e} |")
    return lines


@torch.no_grad()
def measure_folding(name: str) -> list[str]:
    """Lines of the table of FoldingDiff."""
    golden, lines = Golden(name), []
    with tempfile.TemporaryDirectory() as place:
        model = zoo.load(golden.converted(Path(place)))
    net = off(golden.asked(model)["out"], golden.said["out"])
    trained = golden.config["trained"]
    words = f"{golden.config['bert']['position_embedding_type']}, {trained['time_encoding']}, {trained['decoder']}"
    for dtype in PRECISIONS[trained["variance_schedule"]]:
        found = golden.folded(model, dtype)
        turn = max(turned(v, golden.said[k]) for k, v in found.items() if k.startswith("angles"))
        apart = max(float((v - golden.said[k]).abs().max()) for k, v in found.items() if k.startswith("atoms"))
        betas = f"{trained['variance_schedule']}, {trained['timesteps']}"
        lines.append(f"| {words} | {betas} | {net:.1e} | {str(dtype).removeprefix('torch.')} | {turn:.1e} | {apart:.1e} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for package in COMMITS:
        parser.add_argument(f"--{package}", type=Path)
    args = {k.replace("_", "-"): v for k, v in vars(parser.parse_args()).items() if v is not None}
    if not args:
        table()
    for source in args.values():
        importable(source)
    for name, (package, *rest) in GUIDED.items():
        if package in args:
            guided(name, package, *rest)
    for name, config in KARRAS.items():
        if "k-diffusion" in args:
            karras(name, config)
    for name, options in EDM.items():
        if "edm" in args:
            edm(name, options)
    for name, (bert, trained) in FOLDING.items():
        if "foldingdiff" in args:
            folding(name, bert, trained)
    for name, config in GENIE.items():
        if "genie" in args:
            genie(name, config)
    for name, options in SIT.items():
        if "sit" in args:
            sit(name, options)


if __name__ == "__main__":
    main()
