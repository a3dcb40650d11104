"""Break the code on purpose: each mutation must turn a fast test red.

    python benchmarks/mutations.py            # all of them, a table, exit code 1 if one survives
    python benchmarks/mutations.py --list
    python benchmarks/mutations.py clip ema   # those whose name holds one of the words

Each mutation changes one place of a copy of the tree, and runs the fast tests of the folder or file named with it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: name -> (file, what stands there once, what replaces it, the tests that must notice)
MUTATIONS: dict[str, tuple[str, str, str, str]] = {
    # the five of the design
    "swap c and u": ("zoo/core/guidance.py", "torch.lerp(null, cond, 1", "torch.lerp(cond, null, 1", "tests/core"),
    "one condition's weight on another": (
        "zoo/core/guidance.py", "zip(self.each.values(), without", "zip(list(self.each.values())[::-1], without", "tests/core",
    ),
    "a single condition is never dropped": (
        "zoo/training/objective.py", "model.recipe.training.single_dropout if self.dropout", "0.0 if self.dropout",
        "tests/model/test_model.py",
    ),
    "a variation forgets its noise": (
        "zoo/model/model.py", "first.alpha * start + first.sigma * eps", "first.alpha * start", "tests/model/test_model.py",
    ),
    "shift t by one": (
        "zoo/core/diffusion.py", "t = t.to(device=x.device, dtype=wide)", "t = t.to(device=x.device, dtype=wide) + 1",
        "tests/core",
    ),
    "drop the clip": ("zoo/core/predict.py", "if clip is not None:", "if False:", "tests/core"),
    "feed 3x+1": (
        "zoo/core/diffusion.py", "out = net(x_t.to(dtype), t,", "out = net(3 * x_t.to(dtype) + 1, t,", "tests/core",
    ),
    "wrong alpha_bar": ("zoo/core/schedule.py", "(u + 0.008) / 1.008", "(u + 0.08) / 1.08", "tests/core"),
    # their neighbours
    "grid one step late": (
        "zoo/core/schedule.py", "[round(T - i * T / steps) - 1 for", "[max(round(T - i * T / steps) - 2, 0) for", "tests/core",
    ),
    "alpha is alpha_bar": (
        "zoo/core/schedule.py", "Level(t.double(), self.alpha_bar[t].sqrt(),", "Level(t.double(), self.alpha_bar[t],",
        "tests/core",
    ),
    "weight is scale": ("zoo/core/guidance.py", "torch.lerp(null, cond, 1 + self.weight)",
                        "torch.lerp(null, cond, self.weight)", "tests/core"),
    "eps kept after the clip": (
        "zoo/core/predict.py", "return x0, noise_of(x, x0, level)", "return x0, predict(x, level)[1]", "tests/core",
    ),
    "no dropped conditions": (
        "zoo/training/objective.py", "rows = torch.rand(len(x0), generator=rng) < rate",
        "rows = torch.rand(len(x0), generator=rng) < 0", "tests/training/test_objective.py",
    ),
    "sample i depends on the chunk": (
        "zoo/model/plan.py", "seeds.SampleRng(self.seed, rows, sizes,", "seeds.SampleRng(self.seed, range(len(rows)), sizes,",
        "tests/contract.py",
    ),
    "a mirror image keeps its corners' order": (
        "zoo/policy/data.py", "T_MIRROR = [1, 0, 3, 2, 5, 4, 7, 6, 8]", "T_MIRROR = [0, 1, 2, 3, 4, 5, 6, 7, 8]",
        "tests/policy",
    ),
    "voices are numbered in a split alone": (
        "zoo/audio/data.py", "as_posix()) for p in self.readable}", "as_posix()) for p in self.files}", "tests/audio",
    ),
    "an image of a held-out episode is trained on": (
        "zoo/policy/data.py", "len(bounds), HELD_OUT)]", "len(bounds), HELD_OUT)] if mirror is None else bounds",
        "tests/policy",
    ),
    "retrieval looks in every style": (
        "zoo/image/caption_metrics.py", "similar[self.held.style[:, None] != self.trained.style] = -2", "pass",
        "tests/image/test_caption_metrics.py",
    ),
    "the sixth nearest caption is among five": (
        "zoo/image/caption_metrics.py", "hits = int((found < k).sum())", "hits = int((found <= k).sum())",
        "tests/image/test_caption_metrics.py",
    ),
    "captions of the same words are nearer than each other": (
        "zoo/image/caption_judge.py", "similar > mine + SAME", "similar >= mine", "tests/image/test_caption_metrics.py",
    ),
    "words that are not there count": (
        "zoo/image/caption_judge.py", "self.weights[known].float() * (tokens >= 0)", "self.weights[known].float()",
        "tests/image/test_caption_metrics.py",
    ),
    "arrows are mirrored": (
        "benchmarks/train_caption_judge.py", "mirrored & (uniform(0, 1) < 0.5)", "uniform(0, 1) < 0.5",
        "tests/image/test_caption_metrics.py",
    ),
    "copies are looked for in every style": (
        "zoo/image/caption_metrics.py", "mine, theirs = asked == key, known == key", "mine, theirs = asked == key, known >= 0",
        "tests/image/test_caption_metrics.py",
    ),
    "extra keys are ignored": (
        "zoo/files.py", 'f"unexpected {k}" for k in tensors.keys() - own.keys()', 'f"" for k in ()', "tests/test_files.py",
    ),
    "a write is not atomic": (
        "zoo/disk.py", "with replacing(path) as temporary, temporary.open(\"xb\") as file:",
        "with disk_errors(path), path.open(\"wb\") as file:", "tests/test_files.py",
    ),
    "ema forgets": ("zoo/training/ema.py", "1 - min(self.decay, (1 + step) / (10 + step))", "1 - self.decay",
                    "tests/training/test_trainer.py"),
    "resume starts the data again": (
        "zoo/training/trainer.py", "self.step, self.clock.before, self.init, self.pace = facts.step, ",
        "_, self.clock.before, self.init, self.pace = 0, ",
        "tests/training/test_trainer.py",
    ),
    "no memory while decoding is torch's own error": (
        "zoo/model/model.py", "with memory_for(len(rows)):\n                    items", "if True:\n                    items",
        "tests/model/test_model.py",
    ),
    "a resumed run forgets where it started": (
        "zoo/training/trainer.py", "facts.seconds, facts.init", "facts.seconds, ''", "tests/training/test_trainer.py",
    ),
    "execution starts one step late": (
        "zoo/policy/controller.py", "first = self.codec.n_obs - 1", "first = self.codec.n_obs", "tests/policy",
    ),
    "windows leave their episode": (
        "zoo/policy/data.py", "np.arange(first, first + self.horizon), 0, len(actions) - 1", 
        "np.arange(first, first + self.horizon), 1, len(actions) - 1", "tests/policy",
    ),
    "the T turns the wrong way": (
        "zoo/policy/data.py", "cos * u - sin * v + x", "cos * u + sin * v + x", "tests/policy",
    ),
    "a robot moves on NaN": ("zoo/policy/codec.py", "if not torch.isfinite(array).all():", "if False:", "tests/policy"),
    "padding has noise": (
        "zoo/core/seeds.py", "row if self.sizes is None else row.narrow(self.axis, 0, self.sizes[i])", "row",
        "tests/model/test_sizes.py",
    ),
    # audio
    "a clip is rounded down": (
        "zoo/audio/waveform.py", "np.rint(self._all.T", "np.floor(self._all.T", "tests/audio/test_audio_waveform.py",
    ),
    "silence is no silence": ("zoo/audio/codec.py", "level.expm1()", "level.exp()", "tests/audio/test_audio_codec.py"),
    "a clip of another rate is taken": (
        "zoo/audio/codec.py", "if item.sample_rate != self.sample_rate:", "if False:", "tests/audio/test_audio_codec.py",
    ),
    "held-out clips are trained on": (
        "zoo/audio/data.py", '~(held["test"] | held["validation"])', '~held["test"]', "tests/audio/test_audio_data.py",
    ),
    "confusions the other way round": (
        "zoo/audio/metrics.py", "heard[labels.cpu() == c].bincount", "labels.cpu()[heard == c].bincount",
        "tests/audio/test_audio_metrics.py",
    ),
    # point clouds
    "padded points are read": (
        "zoo/point3d/latents.py", "masked_fill(~keep, -torch.inf)", "masked_fill(~keep, 0.0)", "tests/point3d/test_latents.py",
    ),
    "held-out shapes are trained on": (
        "zoo/point3d/data.py", '"train": ~test & ~held', '"train": ~test', "tests/point3d/test_point_data.py",
    ),
    "clouds mirrored along the other axis": (
        "zoo/point3d/cloud.py", "return 0 if far[0] <= far[1] else 2", "return 2 if far[0] <= far[1] else 0",
        "tests/point3d/test_point_cloud.py",
    ),
    "warped clouds lose their symmetry": (
        "zoo/point3d/codec.py", "torch.tensor([0.0, 1.0, 0.0])", "torch.tensor([1.0, 1.0, 1.0])",
        "tests/point3d/test_point_codec.py",
    ),
    "clouds warped across each other": (
        "zoo/point3d/codec.py", "(math.pi * u).cos())) / math.pi)", "(math.pi * u).cos())))",
        "tests/point3d/test_point_codec.py",
    ),
    "known points are made anew": (
        "zoo/point3d/domain.py", "pad(kept, (0, missing))", "pad(~kept, (0, missing))", "tests/point3d/test_point_codec.py",
    ),
    "the Chamfer distance looks one way": (
        "zoo/point3d/metrics.py", " + (a.query(b.data)[0] ** 2).mean()", "", "tests/point3d/test_point_metrics.py",
    ),
    "stretching hides a copied cloud": (
        "zoo/point3d/evaluate.py", "return centred / centred.std(0).clip(1e-6)", "return centred",
        "tests/point3d/test_point_metrics.py",
    ),
    # backbones, and what came with them
    "backbones: churn without its noise": (
        "zoo/core/samplers.py", "raised: Tensor = up * x + s_noise", "raised: Tensor = up * x + 0 * s_noise",
        "tests/core/test_samplers.py",
    ),
    "backbones: the step scale is forgotten": (
        "zoo/core/samplers.py", "if step_scale != 1 and", "if False and", "tests/core/test_samplers.py",
    ),
    "backbones: superposition may mirror": (
        "zoo/protein/rigid.py", "sign[..., 2] = torch.linalg.det(u) * torch.linalg.det(vh)", "pass",
        "tests/protein/test_rigid.py",
    ),
    "backbones: a guess from x_t itself": (
        "zoo/training/objective.py", "FURTHER = 2.0", "FURTHER = 1.0", "tests/training/test_objective.py",
    ),
    "backbones: the last guess is never told": (
        "zoo/core/predict.py", "memory.guess = x0.detach()", "pass", "tests/core/test_predict.py",
    ),
    "backbones: the net is told of its own idea of the motif": (
        "zoo/core/predict.py",
        "    predict = steered(predict, steers)\n"
        '    network.told = [steer.told for steer in steers if hasattr(steer, "told")]\n'
        "    if network.memory is None:\n        return predict",
        "    if network.memory is None:\n        return steered(predict, steers)\n"
        "    return steered(remembered(predict, network.memory), steers)", "tests/core/test_predict.py",
    ),
    "backbones: the net is not told what is known": (
        "zoo/core/predict.py", "else self.known.to(x.device).expand_as(x)", "else torch.zeros_like(x, dtype=torch.bool)",
        "tests/core/test_predict.py",
    ),
    "backbones: neighbours stay behind a motif": (
        "zoo/protein/rigid.py", "moved = out - whole", "moved = 0 * whole", "tests/protein/test_rigid.py",
    ),
    "backbones: neighbours of what stays in place stay behind": (
        "zoo/contract/domain.py", "hold(model.codec.held(x0, mask), mask)", "hold(x0, mask)",
        "tests/protein/test_protein_motif.py",
    ),
    "backbones: smoothing counts padding": (
        "zoo/protein/rigid.py", ".clamp(min=-60)) * mask[:, None]", ".clamp(min=-60))", "tests/protein/test_rigid.py",
    ),
    "backbones: no guess holds a motif in training": (
        "zoo/training/objective.py", "model.codec.hint(first, batch.x0[:n], mask, rng)", "first, known[:n]",
        "tests/training/test_objective.py",
    ),
    "backbones: mixed precision bends a motif": (
        "zoo/protein/rigid.py", "torch.autocast(moving.device.type, enabled=False)", "torch.autocast(moving.device.type)",
        "tests/protein/test_rigid.py",
    ),
    "backbones: rows of any size in a batch": (
        "zoo/training/batches.py", "order[sizes[order].argsort(stable=True)]", "order", "tests/training/test_trainer.py",
    ),
    "backbones: training mirrors chains": (
        "zoo/protein/codec.py", "x @ random_rotation(rng)", "-x @ random_rotation(rng)",
        "tests/protein/test_protein_codec.py",
    ),
    "backbones: frames lose the hand": (
        "zoo/protein/geometry.py", "torch.linalg.cross(first, second)", "torch.linalg.cross(first, second).abs()",
        "tests/protein/test_protein_geometry.py",
    ),
    "backbones: the last residue sees padding": (
        "zoo/protein/denoiser.py", "torch.cat([torch.ones_like(followed), followed, followed], 2)", "1",
        "tests/protein/test_protein_denoiser.py",
    ),
    "backbones: N-H points the other way": (
        "zoo/protein/geometry.py", "n[1:] + unit(c[:-1] - oxygen[:-1])", "n[1:] - unit(c[:-1] - oxygen[:-1])",
        "tests/protein/test_protein_geometry.py",
    ),
    "backbones: psi for phi": (
        "zoo/protein/geometry.py", "F.pad(phi, (1, 0), value=none), F.pad(psi, (0, 1), value=none)",
        "F.pad(psi, (0, 1), value=none), F.pad(phi, (1, 0), value=none)", "tests/protein/test_protein_geometry.py",
    ),
    "backbones: gaps are bridged": ("zoo/protein/structure.py", "<= GAP", "<= 1e9", "tests/protein/test_protein_data.py"),
    "backbones: a motif where the prediction was": (
        "zoo/protein/motif.py", "where[own] = True", "where[own] = False",
        "tests/protein/test_protein_motif.py",
    ),
    "select: the worst candidate goes on": (
        "zoo/core/inpaint.py", "reward(step.x0).view(-1, many).argmax(1)", "reward(step.x0).view(-1, many).argmin(1)",
        "tests/core/test_inpaint.py",
    ),
    "select: what the net was told stays with another candidate": (
        "zoo/core/inpaint.py", "memory.take(index)\n\n\ndef put_into", "pass\n\n\ndef put_into", "tests/core/test_inpaint.py",
    ),
    "backbones: a motif's reward is its clashes": (
        "zoo/protein/motif.py", "return -overlap(", "return overlap(", "tests/protein/test_protein_motif.py",
    ),
    "backbones: clashes of neighbours count": (
        "zoo/protein/metrics.py", "(between < CA_CLASH) & (apart > 1)", "(between < CA_CLASH)",
        "tests/protein/test_protein_metrics.py",
    ),
    # the Hub
    "hashes are not checked": (
        "zoo/hub/address.py", "return sha.hexdigest() == digest", "return True", "tests/hub/test_hub_pull.py",
    ),
    "files of the branch, not of the commit": (
        "zoo/hub/client.py", "revision=snapshot.commit,", "revision=address.revision,", "tests/hub/test_hub_pull.py",
    ),
    "every kind of file is fetched": (
        "zoo/hub/address.py", " and name.lower().endswith(SUFFIXES)", "", "tests/hub/test_hub_pull.py",
    ),
    "errors repeat what the server says": ("zoo/hub/client.py", "{_clean(text, sent)}", "{text}", "tests/hub/test_hub_pull.py"),
    "a lost answer fails the push": ("zoo/hub/push.py", "hub.retried(once)", "once()", "tests/hub/test_hub_push.py"),
    "an edited card is replaced": ("zoo/hub/card.py", "if not edited(old):", "if True:", "tests/hub/test_card.py"),
    "held-out rows are trained on": (
        "zoo/data/folder.py", '== (split != "train")', '!= (split == "x")', "tests/hub/test_hub_data.py",
    ),
    # the open contract
    "labels mind upper case": (
        "zoo/contract/conditions.py", "known.casefold() == value.casefold()", "known == value",
        "tests/contract/test_conditions.py",
    ),
    "steers in the wrong order": (
        "zoo/core/predict.py", "for steer in steers:\n        if not takes(steer, 1)",
        "for steer in reversed(steers):\n        if not takes(steer, 1)", "tests/core",
    ),
    "guidance rescale counts padding": (
        "zoo/core/guidance.py", "ratio = deviation(cond, real) / deviation(out, real)",
        "ratio = deviation(cond) / deviation(out)", "tests/core/test_guidance.py",
    ),
    "a sampler's state is as coarse as the weights": (
        "zoo/model/model.py", "return torch.float64 if self.dtype == torch.float64 else torch.float32", "return self.dtype",
        "tests/core tests/model",
    ),
    "no gradient reaches a steer": (
        "zoo/core/correction.py", "else x.detach().requires_grad_()", "else x.detach()", "tests/core/test_steer.py",
    ),
    "half precision rounds the live model": (
        "zoo/model/checkpoint.py", "stored.denoiser = copy.deepcopy(model.denoiser)", "stored.denoiser = model.denoiser",
        "tests/test_files.py",
    ),
    "a net that asks for its level gets no gain": (
        "zoo/core/diffusion.py", "if self.precondition:\n            gain =", "if False:\n            gain =", "tests/core",
    ),
    "an end of a net is made orthogonal": (
        "zoo/training/muon.py", "and id(part) not in ends", "", "tests/training/test_muon.py",
    ),
    "a second thing takes a name": (
        "zoo/extras.py", "if self._found.get(name, thing) is not thing:", "if False:", "tests/test_extras.py",
    ),
    "samples forget the settings of their sampler": (
        "zoo/model/plan.py", "            **self.public,\n", "", "tests/model",
    ),
    "a policy takes data that it does not use": (
        "zoo/policy/evaluate.py", "if data is not None:", "if False:", "tests/policy/test_controller.py",
    ),
    # words
    "words: padding is read": (
        "zoo/nets/text.py", 'mask = (values > 0) & ~rearrange(none, "b -> b 1")', "mask = values > -1",
        "tests/nets/test_text.py",
    ),
    "words: the null is a text like any other": (
        "zoo/nets/text.py", 'torch.where(rearrange(none, "b -> b 1 1"), self.null.to(tokens.dtype), tokens)', "tokens",
        "tests/nets/test_text.py",
    ),
    "words: cross-attention sees padding": (
        "zoo/nets/blocks.py", "torch.zeros_like(mask, dtype=v.dtype).masked_fill(~mask, -torch.inf)[:, None, None]",
        "torch.zeros_like(mask, dtype=v.dtype)[:, None, None]", "tests/nets/test_text.py",
    ),
    "words: no level attends to them": (
        "zoo/nets/unet.py", "(attention if cross is None else cross)[level]", "False", "tests/nets/test_text.py",
    ),
    "words: the negative is forgotten": (
        "zoo/core/predict.py", "for k, v in network.cond.items()} | dict(negative or {})", "for k, v in network.cond.items()}",
        "tests/model/test_plan.py",
    ),
    "words: keywords are never drawn": (
        "zoo/data/captions.py", "float(torch.rand((), generator=rng)) >= KEYWORDS", "True", "tests/data/test_captions_files.py",
    ),
    "words: what is held out is trained on": (
        "zoo/image/captions.py", '(held == "train") == (name == "train")', 'held != name', "tests/image/test_captions.py",
    ),
    "words: another table is taken": (
        "zoo/contract/words.py", "if found != sha256:", "if False:", "tests/contract/test_text.py",
    ),
    "words: case counts": (
        "zoo/contract/words.py", '"".join(spelled)).casefold()', '"".join(spelled))', "tests/contract/test_text.py",
    ),
    "words: a long text is read": (
        "zoo/contract/words.py", "if len(text) > MOST_CHARACTERS:", "if False:", "tests/contract/test_text.py",
    ),
    "words: a file has two captions": (
        "zoo/data/captions.py", "if file in found:", "if False:", "tests/data/test_captions_files.py",
    ),
    "words: a caption leads out of the folder": (
        "zoo/data/captions.py", 'or ".." in pure.parts', "", "tests/data/test_captions_files.py",
    ),
    "all samples between two wishes are the first": (
        "zoo/model/model.py", "Blend(away, torch.linspace(0, 1, k))", "Blend(away, torch.zeros(k))",
        "tests/model/test_interpolate.py",
    ),
    "samples between two wishes have noises of their own": (
        "zoo/model/model.py", "seeds.SampleRng(seed, [0] * k,", "seeds.SampleRng(seed, list(range(k)),",
        "tests/model/test_interpolate.py",
    ),
    "a chain's model forgets the one before": (
        "zoo/model/chain.py", "asked[self.links[k - 1]] = made", "pass", "tests/model/test_chain.py",
    ),
    "a chain draws the same noise twice": (
        "zoo/model/chain.py", "own = first if k == 0 else seeds.derive_seed(first, STAGES, k) >> 1", "own = first",
        "tests/model/test_chain.py",
    ),
    "a small sample's noise is not told": (
        "zoo/nets/small.py", "self.share(torch.nan_to_num(values[:, -1, 0, 0]))",
        "self.share(torch.zeros_like(values[:, -1, 0, 0]))", "tests/contract/test_small.py tests/nets",
    ),
    "a net does not see the small sample": (
        "zoo/nets/grid.py", "self.net.outputs(self.embed.beside(x_t, cond), *self.embed.told(t, cond))",
        "self.net.outputs(self.embed.beside(x_t, {}), *self.embed.told(t, cond))", "tests/contract/test_small.py",
    ),
    "words: a missing picture is passed over": (
        "zoo/data/captions.py", "elif not file.is_file():", "elif False:", "tests/data/test_captions_files.py",
    ),
    # first stages and latents
    "latents are drawn with the variance": (
        "zoo/model/first_stage.py", "torch.exp(0.5 * log_variance.to(x.dtype)) * noise",
        "torch.exp(log_variance.to(x.dtype)) * noise", "tests/model/test_first_stage.py",
    ),
    "the posterior has no part in the deviation": (
        "zoo/model/first_stage.py", "squares += (mean.square() + variance).sum(axes)", "squares += mean.square().sum(axes)",
        "tests/model/test_first_stage.py",
    ),
    "what is not known leaks into known latents": (
        "zoo/model/first_stage.py", "self.lift(filled(x, known)[None])", "self.lift(x[None])",
        "tests/model/test_first_stage.py",
    ),
    "a cell is known by one of its pixels": (
        "zoo/model/first_stage.py", ".all(axis + 1)", ".any(axis + 1)", "tests/model/test_first_stage.py",
    ),
    "known pixels are not put back": (
        "zoo/model/model.py", "x if put_back is None else put_back(x), chunk.cond", "x, chunk.cond",
        "tests/model/test_first_stage.py",
    ),
    "any first stage will do": (
        "zoo/model/first_stage.py", "if self.spec.sha256 not in (None, found):", "if False:", "tests/model/test_first_stage.py",
    ),
    "a first stage is rounded": (
        "zoo/model/first_stage.py", "return found | narrow if lossless else found", "return found | narrow",
        "tests/model/test_first_stage.py",
    ),
    "verify forgets the first stage": (
        "zoo/model/golden.py", '["out"] if model.codec.inner is model.codec else ["out", "lowered"]', '["out"]',
        "tests/model/test_first_stage.py",
    ),
    "training sees the mean of the latents": (
        "zoo/training/objective.py", "model.codec.lift(batch.x0, rng)", "model.codec.lift(batch.x0)",
        "tests/training/test_latent.py",
    ),
    "a pushed model lacks its first stage": (
        "zoo/model/prepare.py", "if checkpoint.without_stage(folder):", "if False:", "tests/model/test_first_stage.py",
    ),
    # steers, edits and other people's models
    "what lies in a set may leave the bounds of x0": (
        "zoo/core/within.py", "at = moved.clamp(-setting.clip, setting.clip)", "at = moved", "tests/core/test_within.py",
    ),
    "a set and the bounds are met once": (
        "zoo/core/within.py", "for _ in range(TURNS):", "for _ in range(1):", "tests/core/test_within.py",
    ),
    "the way back from units forgets their scale": (
        "zoo/core/within.py", "torch.where(gap == 0, 0, gap / scale)", "torch.where(gap == 0, 0, gap)",
        "tests/core/test_within.py",
    ),
    "plans go through an obstacle between two places": (
        "zoo/policy/steers.py", "/ length.clamp(min=1e-12)).clamp(0, 1)", "/ length.clamp(min=1e-12)).clamp(0, 0)",
        "tests/policy/test_policy_steers.py",
    ),
    "an obstacle has no body": (
        "zoo/policy/steers.py", "[o.radius + self.body for o in self.obstacles]", "[o.radius for o in self.obstacles]",
        "tests/policy/test_policy_steers.py",
    ),
    "the pace counts from the plan, not from what was made of it": (
        "zoo/policy/steers.py", "made[:, i, own] - made[:, i - 1, own]", "actions[:, i, own] - actions[:, i - 1, own]",
        "tests/policy/test_policy_steers.py",
    ),
    "points in front of what was seen stay": (
        "zoo/point3d/steers.py", "wrong = inside & (empty | (depth < seen - self.slack))", "wrong = inside & empty",
        "tests/point3d/test_point_steers.py",
    ),
    "points where nothing is stay": (
        "zoo/point3d/steers.py", "wrong = inside & (empty | (depth < seen - self.slack))",
        "wrong = inside & (depth < seen - self.slack)", "tests/point3d/test_point_steers.py",
    ),
    "copies of a chain pass through each other": (
        "zoo/protein/copies.py", "blocked = (~free).flip(0).cumsum(0).flip(0) > 0", "blocked = ~free & ~free.roll(1)",
        "tests/protein/test_copies.py",
    ),
    "copies see each other": (
        "zoo/protein/copies.py", 'return {"copies": torch.where(place < own, rows, -1)}', "return {}",
        "tests/protein/test_copies.py",
    ),
    "bonds to a motif stay broken": (
        "zoo/protein/motif.py", "< TORN:\n            continue", "< 0:\n            continue",
        "tests/protein/test_protein_motif.py",
    ),
    "a mended bond moves the motif": (
        "zoo/protein/motif.py", "fixed = held[low:high].clone()", "fixed = torch.zeros_like(held[low:high])",
        "tests/protein/test_protein_motif.py",
    ),
    "files of a request are counted in each piece alone": (
        "zoo/demo/uploads.py", "rest = rest[1 - len(between) :]", "rest = rest[:0]",
        "tests/demo/test_demo_page.py -m slow -k first_kind",
    ),
    "a moved table is not turned": (
        "zoo/policy/play.py", "angle = math.radians(degrees) - goal[2]", "angle = 0.0 * goal[2]",
        "tests/demo/test_demo_engine.py",
    ),
    "an edit of the page forgets the method": (
        "zoo/demo/engine.py", "held=held, method=run.method", "held=held", "tests/demo/test_demo_engine.py",
    ),
    "the lines of an edit forget its answers": (
        "zoo/demo/engine.py", '"    **model.domain.edited(model, item, answers),"', '"    known=item, where=True,"',
        "tests/demo/test_demo_engine.py",
    ),
    "a text that is too long is cut in silence": (
        "zoo/interop/diffusers/prompt.py", "if long:", "if False:",
        "tests/interop/test_latent.py -m slow -k read_as_theirs",
    ),
    "plms forgets one of its slopes": (
        "zoo/core/samplers.py", "slopes = [eps, *slopes[: len(BASHFORTH) - 1]]",
        "slopes = [eps, *slopes[: len(BASHFORTH) - 2]]",
        "tests/core/test_diffusers.py",
    ),
    "plms starts with Euler's step": (
        "zoo/core/samplers.py", "if i == 0 and len(levels) > 2:", "if False:", "tests/core/test_samplers.py",
    ),
    # nets of other people
    "heads are split in the other order": (
        "zoo/interop/guided_diffusion.py", "if split_first else", "if not split_first else", "tests/interop/test_pickles.py",
    ),
    "a residual that halves forgets its input": (
        "zoo/interop/guided_diffusion.py", "h, x = self.resample(h), self.resample(x)",
        "h, x = self.resample(h), self.resample(h)", "tests/interop/test_pickles.py",
    ),
    "an augmentation is told": (
        "zoo/interop/k_diffusion.py", "told.new_zeros(len(told), AUGMENTED)", "told.new_ones(len(told), AUGMENTED)",
        "tests/interop/test_pickles.py",
    ),
    "angles are not wrapped": (
        "zoo/core/circle.py", "x = wrapped(step.x, period)", "x = step.x", "tests/interop/test_foldingdiff.py",
    ),
    "noise of angles is not wrapped": (
        "zoo/core/circle.py", "x = wrapped(x, period) for", "for", "tests/core/test_circle.py",
    ),
    "training on angles is not wrapped": (
        "zoo/training/objective.py", "x_t = wrapped(x_t, model.codec.period)", "pass", "tests/protein/test_angles.py",
    ),
    "a bond's angle of its own residue": (
        "zoo/protein/geometry.py", "tau[..., :-1]", "tau[..., 1:]", "tests/interop/test_foldingdiff.py",
    ),
    "angles around 0": (
        "zoo/protein/angles.py", "+ self.mean.cpu().double()", "", "tests/interop/test_foldingdiff.py",
    ),
    "distances the other way round": (
        "zoo/interop/foldingdiff.py", "place[:, None] - place + ", "place - place[:, None] + ",
        "tests/interop/test_foldingdiff.py",
    ),
    "positions of keys are those of queries": (
        "zoo/interop/foldingdiff.py", '"bhrd,lrd->bhlr"', '"bhld,lrd->bhlr"', "tests/interop/test_foldingdiff.py",
    ),
    "padding of angles is looked at": (
        "zoo/interop/foldingdiff.py", "masked_fill(~mask, -math.inf)", "masked_fill(~mask, 0.0)",
        "tests/interop/test_foldingdiff.py",
    ),
    "the noise of steps is not scaled": (
        "zoo/core/samplers.py", "x = x + noise_scale * math.sqrt(", "x = x + math.sqrt(", "tests/interop/test_genie.py",
    ),
    "triangles of the other edges": (
        "zoo/interop/genie.py", '"bikc,bjkc->bijc" if outgoing', '"bkic,bkjc->bijc" if outgoing', "tests/interop/test_genie.py",
    ),
    "frames of the other hand": (
        "zoo/interop/genie.py", "torch.linalg.cross(binormal, step[:, 1:])", "torch.linalg.cross(step[:, 1:], binormal)",
        "tests/interop/test_genie.py",
    ),
    "padding of CA is looked at": (
        "zoo/interop/genie.py", ".masked_fill(~pairs[:, None], -FAR)", "", "tests/interop/test_genie.py",
    ),
    "steers of CA traces see a coordinate": (
        "zoo/protein/wishes.py", "return x[:, :, 1] if x.ndim == 4 else x", "return x[:, :, 1]", "tests/protein/test_trace.py",
    ),
    "times of SiT are not turned round": (
        "zoo/interop/sit.py", "super().forward(x_t, 1 - t, cond)", "super().forward(x_t, t, cond)",
        "tests/interop/test_sit.py",
    ),
    "padded clips in single precision": (
        "zoo/audio/mel.py", "x.double() if len(item) < self.samples else x", "x",
        "tests/interop/test_mel.py",
    ),
    "a mel picture whose range is not read": (
        "zoo/audio/mel.py", "top_db=self.range_db)", "top_db=80)", "tests/interop/test_mel.py",
    ),
    "a mel picture on its side": (
        "zoo/interop/diffusers/mel.py", '"x_res": ("frames", "whole"), "y_res": ("mels", "whole")',
        '"x_res": ("mels", "whole"), "y_res": ("frames", "whole")', "tests/interop/test_mel.py",
    ),
    "a crop beside the middle": (
        "zoo/interop/lerobot/vision.py", "round((s - c) / 2)", "(s - c + 1) // 2", "tests/interop/test_lerobot_pictures.py",
    ),
    "a picture is resized without a filter": (
        "zoo/interop/lerobot/vision.py", "antialias=True", "antialias=False", "tests/interop/test_lerobot_pictures.py",
    ),
    "places on their side": (
        "zoo/interop/lerobot/vision.py", "[x.flatten(), y.flatten()]", "[y.flatten(), x.flatten()]",
        "tests/interop/test_lerobot_pictures.py",
    ),
    "eyes after the environment": (
        "zoo/interop/lerobot/unet.py", "*self._look(rows), rows[..., self.environment]]",
        "rows[..., self.environment], *self._look(rows)]", "tests/interop/test_lerobot_pictures.py",
    ),
    "cameras change places": (
        "zoo/interop/lerobot/unet.py", "found[:, :, i]", "found[:, :, -1 - i]", "tests/interop/test_lerobot_pictures.py",
    ),
    "eyes look at each step": (
        "zoo/interop/lerobot/unet.py", "once(self, functools.partial(self.seen, *given), *given)", "self.seen(*given)",
        "tests/interop/test_lerobot_pictures.py",
    ),
    "all cameras in the light of the first": (
        "zoo/policy/codec.py", "own = first + RGB * height * width, slice(RGB * i, RGB * (i + 1))",
        "own = first + RGB * height * width, slice(RGB)", "tests/interop/test_lerobot_pictures.py",
    ),
    "channels last": (
        "zoo/policy/codec.py", "found.movedim(-1, -3).flatten(-3)", "found.flatten(-3)",
        "tests/interop/test_lerobot_pictures.py",
    ),
    "policies of pictures are trained": (
        "zoo/policy/domain.py", 'check_recorded(recipe.codec.get("cameras", ()))', "pass",
        "tests/interop/test_lerobot_pictures.py",
    ),
    "a number that does not move is a range": (
        "zoo/interop/diffusion_policy.py", "(ends | still).tolist()", "(ends | ~still).tolist()",
        "tests/interop/test_diffusion_policy.py",
    ),
    "an action that does not move is held": (
        "zoo/interop/diffusion_policy.py", '"min_max" and moving and bound', '"min_max" and bound',
        "tests/interop/test_diffusion_policy.py",
    ),
    "scale and offset the other way round": (
        "zoo/interop/diffusion_policy.py", "-offset / scale, 1 / scale)", "offset / scale, 1 / scale)",
        "tests/interop/test_diffusion_policy.py",
    ),
    "weights that are not averaged": (
        "benchmarks/convert_policy.py", '("ema_model", "model")', '("model", "ema_model")',
        "tests/interop/test_diffusion_policy.py",
    ),
    "a checkpoint computes": (
        "benchmarks/convert_policy.py", "return sum(map(int, total[1].split(\"+\")))", "return int(total[1][0])",
        "tests/interop/test_diffusion_policy.py",
    ),
    "no label is the first": ("zoo/interop/edm.py", " * (label >= 0)[:, None]", "", "tests/interop/test_pickles.py"),
}  # fmt: skip


def mutated(text: str, old: str, new: str, where: str) -> str:
    """A text with its one place `old` changed, however a formatter has broken the lines of it.

    Raises:
        SystemExit: there is no such place, or more than one; `where` says whose.
    """
    pattern = r"\s*".join(re.escape(token) for token in re.findall(r"\w+|[^\w\s]", old))
    places = re.findall(pattern, text)
    if len(places) != 1:
        raise SystemExit(f"{where} holds {len(places)} times what is to be changed; mend the mutation.")
    before, after = old[: len(old) - len(old.lstrip())], old[len(old.rstrip()) :]
    core = new.removeprefix(before).removesuffix(after)
    return text.replace(places[0], core)


def run(name: str, python: str) -> tuple[bool, str]:
    """(whether a test failed that passes without the mutation, the first that did) for one mutation."""
    file, old, new, tests = MUTATIONS[name]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", "runs", "out", "__pycache__", ".*_cache"))
        path = tree / file
        text = path.read_text(encoding="utf-8")

        def tested(*asked: str) -> subprocess.CompletedProcess[str]:
            # the copy comes before the installed package
            return subprocess.run(
                [python, "-m", "pytest", "-x", "-p", "no:cacheprovider", *asked],
                cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, capture_output=True, text=True,
            )  # fmt: skip

        path.write_text(mutated(text, old, new, f"{name!r}: {file}"), encoding="utf-8")
        done = tested(*tests.split())
        failed = re.search(r"^(?:FAILED|ERROR) ([^\s\[]+)", done.stdout, re.MULTILINE)
        if done.returncode != 1 or failed is None:
            return False, done.stdout[-300:].strip()
        path.write_text(text, encoding="utf-8")
        # one that is red in any case notices nothing
        if tested(failed[1], "-m", "slow or not slow").returncode != 0:
            return False, f"{failed[1]} fails without it, too: mend that test first"
    return True, failed[1]


def main() -> int:
    """Run the mutations, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="only mutations whose name holds one of these")
    parser.add_argument("--list", action="store_true", help="print the mutations and stop")
    args = parser.parse_args()
    names = [n for n in MUTATIONS if not args.words or any(w in n for w in args.words)]
    survived = 0
    for name in names:
        if args.list:
            print(f"{name:32} {MUTATIONS[name][0]}")
            continue
        caught, by = run(name, sys.executable)
        survived += not caught
        print(f"{'caught  ' if caught else 'SURVIVED'} {name:32} {by}", flush=True)
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
