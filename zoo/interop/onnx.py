"""A model's net as an ONNX file, for programs without torch, and beside it in words and numbers what one samples with.

    model.export("onnx", "out/")        # out/denoiser.onnx, out/denoiser.json, and vocabulary.json where it is told words

The file holds one call of the net: x_t, t and the conditions to the prediction, for any number of samples, and of as many
points or residues as one likes. The sampler is the user's; `denoiser.json` gives the levels of the model's own grid, so that a
loop over them is all that there is to write.
"""

from __future__ import annotations

import copy
import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo import files
from zoo.contract.text import Text
from zoo.core.guidance import drop
from zoo.core.schedule import Level
from zoo.errors import CheckpointError, ConfigError
from zoo.extras import need
from zoo.interop.diffusers.prompt import Prompt
from zoo.model.golden import COND, golden_inputs
from zoo.model.model import Model
from zoo.values import whole

EXTRA = "onnx"
#: the operator set that is written where nobody asks for another: what torch's exporter writes by itself
OPSET = 18
LEAST, MOST = 18, 23
NET, WORDS, VOCABULARY = "denoiser.onnx", "denoiser.json", "vocabulary.json"
#: what the weights of one file may be; larger ones go beside it (bytes)
WHOLE = 1_500_000_000
#: colours of a terminal in the exporter's messages
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
#: grids of that many steps at most are written
STEPS = 1000


class Called(nn.Module):
    """One call of a model's net, of tensors alone.

    Args:
        names: of the inputs after x and t.
    """

    def __init__(self, model: Model, names: Sequence[str]) -> None:
        super().__init__()
        on_cpu = model.device.type == "cpu"
        self.net, self.names = model.denoiser if on_cpu else copy.deepcopy(model.denoiser).cpu(), tuple(names)
        self.diffusion, self.codec = model.diffusion, model.codec

    def forward(self, x: Tensor, t: Tensor, *further: Tensor) -> Tensor:
        """x (B,*S), t (B,), the conditions (B,...) and the mask -> the prediction (B,*S), 0 in the padding."""
        given = dict(zip(self.names, further, strict=True))
        mask = given.pop("mask", None)
        if not self.diffusion.precondition:
            out = self.diffusion.ask(self.net, x, t, given, mask=mask)
        else:
            level = self.diffusion.schedule.of(t)
            out = self.diffusion.denoise(self.net, x, Level(t, level.alpha, level.sigma), given, mask=mask)
        # what a net says of padding means nothing, and other programs compute other things there
        return out if mask is None else out.masked_fill(~self.codec.spread(mask, out.ndim), 0.0)


class OnnxFormat:
    """ONNX files, which are written and not read: they hold no recipe."""

    def recognises(self, folder: Path) -> bool:
        """No folder is read."""
        return False

    def load(self, folder: Path) -> Model:
        """Nothing is read."""
        raise CheckpointError(f"{folder}: ONNX files are written by zoo, not read: they hold no recipe. Load the model itself.")

    def export(self, model: Model, folder: Path, *, opset: int = OPSET) -> Path:
        """Write denoiser.onnx and denoiser.json into a folder that is new, or was written so before.

        Args:
            opset: the version of ONNX's operators, 18 to 23.

        Raises:
            ConfigError: packages that are missing, a first stage, a net that torch cannot write, or a folder with other things.
        """
        opset = whole(opset, "opset", LEAST, MOST)
        for package in ("onnx", "onnxscript"):
            need(package, EXTRA)
        if model.is_first_stage:
            raise ConfigError(f"{model!r} is a first stage, which has no noise: only denoisers are written.")
        there = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
        if odd := sorted(there - {NET, f"{NET}.data", WORDS, VOCABULARY}):
            raise ConfigError(f"{folder} holds other things ({', '.join(odd[:5])}). Give a new folder.")
        if model.dtype != torch.float32:
            raise ConfigError(f"{model!r} has weights in {model.dtype}; load it in float32: zoo.load(name, dtype='fp32').")
        inputs = example(model)
        program = written(model, inputs, opset)
        size = sum(v.numel() * v.element_size() for v in model.denoiser.state_dict().values())
        with files.new_folder(folder) as new:
            program.save(str(new / NET), external_data=size > WHOLE)
            files.write_atomic(new / WORDS, files.dump_json(described(model, inputs, opset)))
            if texts := vocabulary(model):
                files.write_atomic(new / VOCABULARY, files.dump_json(texts))
        return folder


def example(model: Model) -> dict[str, Tensor]:
    """Inputs of two samples, the second without conditions: "x", "t", the conditions, and "mask" where there is one.

    A net that is told its last guess has it as "x0" and "known", as of `zoo.core.predict.Memory`.
    """
    found = golden_inputs(model)
    cond = {k.removeprefix(COND): v for k, v in found.items() if k.startswith(COND)}
    cond = {k: v.float() if v.is_floating_point() else v for k, v in drop(cond, found["drop"]).items()}
    if model.diffusion.self_condition:
        x = found["x_t"]
        cond |= {"x0": torch.full_like(x, torch.nan), "known": torch.zeros_like(x, dtype=torch.bool)}
    mask = {"mask": found["mask"]} if "mask" in found else {}
    return {"x": found["x_t"], "t": found["t"]} | cond | mask


def ragged(model: Model, name: str = "x") -> int | None:
    """The axis of an input along which samples have sizes of their own; None where all have the same."""
    if model.codec.size_name is None or name not in ("x", "x0", "known", "mask"):
        return None
    return 1 if name == "mask" else 1 + model.codec.size_axis


def shape_of(model: Model, name: str, value: Tensor) -> list[int | str]:
    """The shape of an input or output, axes of any size by their names."""
    axis = ragged(model, name)
    return ["batch" if i == 0 else "elements" if i == axis else n for i, n in enumerate(value.shape)]


def vocabulary(model: Model) -> dict[str, Any]:
    """Of each condition that is a text: which words or tokens its numbers are, and some texts as numbers."""
    found: dict[str, Any] = {}
    for name, condition in model.recipe.conditions.items():
        if isinstance(condition, Text):
            found[name] = {
                "numbers": "1 + the place of each word, then zeros; -1 everywhere for no text",
                "length": condition.length,
                "words": list(condition.table.words),
            }
        elif isinstance(condition, Prompt):
            found[name] = {
                "numbers": "the place of each token, by CLIP's byte pairs; -1 everywhere for the empty text",
                "length": condition.length,
                "tokens": condition.tokens.split("\n"),
                "merges": condition.merges.split("\n"),
                "special": condition.special,
            }
        else:
            continue
        texts = list(condition.showcase(3) or [])
        found[name]["examples"] = {text: condition.read(text, 1).values[0].tolist() for text in texts}
    return found


def written(model: Model, inputs: Mapping[str, Tensor], opset: int) -> Any:
    """The program of torch's exporter.

    Raises:
        ConfigError: the net has something in it that ONNX does not express; the message is the exporter's.
    """
    names = [k for k in inputs if k not in ("x", "t")]
    batch = torch.export.Dim("batch", min=1)
    free: dict[str, dict[int, Any]] = {k: {0: batch} for k in inputs}
    elements = torch.export.Dim("elements", min=2)
    for name in inputs:
        if (axis := ragged(model, name)) is not None:
            free[name][axis] = elements
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    try:
        quiet.setLevel(logging.ERROR)
        # the exporter prints its progress, and warns of what it does itself
        with torch.no_grad(), redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                Called(model, names).eval(),
                (inputs["x"], inputs["t"], *(inputs[n] for n in names)),
                dynamo=True,
                # its optimizer takes numbers below 1e-8 for 0, and "v / sqrt(v^2 + 1e-12)" becomes NaN where v is 0
                optimize=False,
                opset_version=opset,
                input_names=list(inputs),
                output_names=["prediction"],
                # a net that is told nothing has no third argument
                dynamic_shapes=(free["x"], free["t"], *([tuple(free[n] for n in names)] if names else [])),
                verbose=False,
            )
    except Exception as error:  # the exporter ends in many
        deepest: BaseException = error
        while deepest.__cause__ is not None:  # the reason; those above it advise to read on
            deepest = deepest.__cause__
        said = " ".join(_COLOURS.sub("", str(deepest)).split())[:300]
        raise ConfigError(f"{model!r}: torch's exporter does not write its net ({type(error).__name__}: {said}).") from error
    finally:
        quiet.setLevel(level)
    # where something in the net looks at a size, the exporter may write that size alone, and says nothing
    fixed = [v.name for v in program.model.graph.inputs if any(isinstance(v.shape[axis], int) for axis in free[v.name])]
    if fixed:
        raise ConfigError(
            f"{model!r}: torch's exporter writes its net for {len(inputs['x'])} samples of one size alone (input "
            f"{', '.join(fixed)}), and a file is of any number: such a net is not written."
        )
    return program


def described(model: Model, inputs: Mapping[str, Tensor], opset: int) -> dict[str, Any]:
    """What one needs to sample with the file: inputs, prediction, schedule, the levels of the default grid."""
    recipe, sampling = model.recipe, model.recipe.sampling
    meaning = {
        "x": "alpha x0 + sigma eps, in encoded units",
        "t": "the level's coordinate, see levels",
        "mask": "true for real elements, false for padding",
        "x0": "the last guess of x0, NaN where there is none yet",
        "known": "which parts of the guess are given",
    }
    meaning |= {
        k: f"{c.describe()}; not given: {'NaN' if inputs[k].is_floating_point() else -1}" for k, c in recipe.conditions.items()
    }
    steps = min(sampling.steps, STEPS)
    default = sampling.at(steps)
    levels = model.diffusion.schedule.levels(steps, default.spacing, default.bounds)
    found: dict[str, Any] = {
        "model": f"{recipe.domain}/{recipe.name}",
        "opset": opset,
        "inputs": [
            {"name": k, "shape": shape_of(model, k, v), "type": str(v.dtype).removeprefix("torch."), "is": meaning.get(k, k)}
            for k, v in inputs.items()
        ],
        "output": {"name": "prediction", "shape": shape_of(model, "x", inputs["x"]), "is": recipe.diffusion.prediction},
        "x0": {
            "eps": "(x - sigma prediction) / alpha",
            "x0": "prediction",
            "v": "(alpha x - sigma prediction) / (alpha^2 + sigma^2)",
            "flow": "(x - sigma prediction) / (alpha + sigma)",
        }[recipe.diffusion.prediction],
        "eps": "(x - alpha x0) / sigma",
        "schedule": recipe.schedule.model_dump(mode="json"),
        "start": model.diffusion.schedule.prior_std(levels[0]),
        # the clean level is no input: its coordinate may be infinite, or none at all
        "levels": [{"t": float(v.t) if v.sigma else None, "alpha": float(v.alpha), "sigma": float(v.sigma)} for v in levels],
        "sampling": {
            k: getattr(default, k)
            for k in ("sampler", "options", "guidance_weight", "guidance_interval", "guidance_rescale", "clip", "guess_below")
        },
        "licence": recipe.licence,
    }
    if ragged(model) is not None:
        found["elements"] = f"any number from 2 on, padded behind in a batch; usual: {model.codec.shape[model.codec.size_axis]}"
    if model.codec.inner is not model.codec:
        codec: Any = model.codec
        found["latents"] = {
            "is": "x0 is a latent of the first stage, which this file does not hold: decode(x0 deviation + mean)",
            "mean": codec.mean.flatten().tolist(),
            "deviation": codec.deviation.flatten().tolist(),
        }
    return found


FORMAT = OnnxFormat()
