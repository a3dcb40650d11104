"""Model cards: README.md of a model folder, made from the recipe and the evaluation's JSON, never typed.

A card is YAML metadata (what the Hub searches and shows) and Markdown text. The text ends with its own hash: so a text
that somebody edited is known, and only the metadata above it is renewed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Protocol

import yaml

from zoo.contract.recipe import FirstStage, Recipe, Sampling
from zoo.contract.registry import FIGURES, domain_names, get_domain
from zoo.errors import ConfigError
from zoo.hub.client import client

#: what the Hub accepts as `license` of those that a recipe may start with; others become `other` with their name
LICENCES = {
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0", "gpl-3.0", "lgpl-3.0", "mpl-2.0", "openrail", "unlicense",
    "unknown",
}  # fmt: skip
#: figures of a metric -> their column in a card's table
COLUMNS = {
    "value": "model",
    "idealised": "idealised",
    "ceiling": "real data (ceiling)",
    "raw": "real, without codec",
    "retrieval": "nearest training sample",
    "floor": "baseline (floor)",
}
#: keys of the metadata that zoo writes; a card keeps all others
MANAGED = ("library_name", "pipeline_tag", "model-index")
_FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)(?:\r?\n)?^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_MARK = re.compile(r"<!-- zoo-card ([0-9a-f]{64}) -->")
#: bytes of a README.md that is read, and of its metadata: the parser of YAML is slow
MOST_CARD, MOST_METADATA, MOST_DEPTH = 1 << 20, 1 << 16, 50
_LONG_NUMBER = re.compile(r"[-+.0-9_:eE]{200,}")


def metrics_table(evaluation: Mapping[str, Any]) -> str:
    """The metrics of an evaluation as a Markdown table: value with its 95 % interval, ceiling (real data), floor (baseline).

    Columns of `COLUMNS` that no metric has are left out.
    """
    metrics = evaluation["metrics"]
    columns = {k: title for k, title in COLUMNS.items() if any(m.get(k) is not None for m in metrics.values())}
    lines = [f"| metric | {' | '.join(columns.values())} | better |", "| --- |" + " --- |" * (len(columns) + 1)]
    for name, m in metrics.items():
        cells = {k: f"{m[k]:.4g}" if m.get(k) is not None else "" for k in columns}
        if m.get("interval"):
            cells["value"] += f" [{', '.join(f'{x:.3g}' for x in m['interval'])}]"
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells.values())} | {m['better']} |")
    return "\n".join(lines)


def curves_table(curves: Mapping[str, Any]) -> str:
    """Quality over settings (benchmarks/curves.py) as a Markdown table, the real pictures' own figures first."""
    names = list(curves["real"])
    lines = [f"| setting | {' | '.join(n.replace('_', ' ') for n in names)} |", "| --- |" + " --- |" * len(names)]
    for row in [{"real data": None} | curves["real"], *curves["rows"]]:
        setting = ", ".join(f"{k}={v}" if v is not None else k for k, v in row.items() if k not in names)
        lines.append(f"| {setting} | {' | '.join(f'{row[n]:.3f}' for n in names)} |")
    return "\n".join(lines)


def default_setting(sampling: Sampling) -> str:
    """The defaults of `model.sample` in one line, and one more for each number of steps that has others."""

    def line(given: dict[str, Any]) -> str:
        return ", ".join(f"{k} = {v}" for k, v in given.items() if v)

    lines = [line(sampling.model_dump(exclude={"few", "least"}))]
    for few in sorted(sampling.few, key=lambda few: few.steps):
        lines.append(f"With at most {few.steps} steps: {line(few.model_dump(exclude={'steps'}))}")
    if sampling.least:
        asked = ", ".join(f"{name} {steps}" for name, steps in sampling.least.items())
        lines.append(f"Steps that other samplers need at least, by which a call warns: {asked}")
    return "\n\n".join(lines)


# ---------------------------------------------------------------- metadata


def _licence(text: str) -> dict[str, str]:
    """A licence at the start of a text, spelt "CC BY-SA 4.0" or "cc-by-sa-4.0", as the Hub's keys."""
    spelt = text.lower().replace(" ", "-")
    known = [name for name in LICENCES if re.match(re.escape(name) + r"(?![.-]?\w)", spelt)]
    if known:
        return {"license": max(known, key=len)}
    word = re.match(r"[A-Za-z0-9][\w.+-]*", text)
    return {} if word is None else {"license": "other", "license_name": word[0].rstrip(".").lower()}


def _results(recipe: Recipe, evaluation: Mapping[str, Any], task: str | None) -> list[Any]:
    """The metrics as the client's `EvalResult`, each with its ceiling and floor, all with their protocol."""
    protocol = dict(evaluation.get("protocol", {}))
    name = re.split(r" \(|[,;](?!\d)", recipe.data)[0].strip() or "own data"
    settings = ("samples", "sampler", "steps", "guidance_weight", "seed", "reference", "features", "weights", "precision")
    measured = {
        "task_type": task or f"{recipe.domain}-generation",
        "dataset_name": name,
        "dataset_type": re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"),
        "dataset_split": str(protocol["split"]) if "split" in protocol else None,
        "dataset_args": {k: protocol[k] for k in settings if protocol.get(k) is not None} or None,
    }
    results = []
    for key, m in evaluation["metrics"].items():
        if m["value"] is None:  # the client leaves out a value of None, and then refuses the card
            continue
        args = {k: m[k] for k in (*FIGURES[1:], "better", "interval") if m.get(k) is not None}
        # "precision_recall" explains two metrics; "precision" alone is the number format
        about = [k for k in protocol if k not in settings and (k == key or key in k.split("_"))]
        if about:
            args["protocol"] = protocol[min(about, key=len)]
        metric = {"metric_type": key, "metric_name": key.replace("_", " "), "metric_value": m["value"], "metric_args": args}
        results.append(client().EvalResult(**measured, **metric))
    return results


class Searched(Protocol):
    """What a card needs of a domain: the Hub's task, if it has one for it, and tags by which people search."""

    hub_task: str | None
    hub_tags: tuple[str, ...]


def metadata(recipe: Recipe, evaluation: Mapping[str, Any] | None = None, domain: Searched | None = None) -> dict[str, Any]:
    """The card's metadata as plain data, by the client's own `ModelCardData`; `domain` is the recipe's."""
    if domain is None and recipe.domain in domain_names():
        domain = get_domain(recipe.domain)
    task, tags = (None, ()) if domain is None else (domain.hub_task, domain.hub_tags)
    task = next(filter(None, (c.task(recipe.domain) for c in recipe.conditions.values())), task)
    origin = re.match(r"hub:([\w.-]+/[\w.-]+)", recipe.data)
    data = client().ModelCardData(
        library_name="zoo",
        pipeline_tag=task,
        tags=["diffusion", recipe.domain, *tags],
        datasets=[origin[1]] if origin else None,
        model_name=f"{recipe.domain}/{recipe.name}" if evaluation else None,
        eval_results=_results(recipe, evaluation, task) if evaluation else None,
        **_licence(recipe.licence),
    )
    return dict(data.to_dict())


class _Dumper(yaml.SafeDumper):
    """Without anchors, and with a text of several lines on one: the client's own reader is slow with blank lines."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _as_text(dumper: _Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\n" in text else None)


_Dumper.add_representer(str, _as_text)


def _load(text: str) -> Any:
    """YAML as plain data, in linear time: nothing that stands for more than it is, and the fast parser where it is there.

    Raises:
        yaml.YAMLError, ValueError: it is not YAML, has a key twice, an alias, or a number or a nesting that is too long.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for event in yaml.parse(text, loader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"the alias *{event.anchor} is not read: write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise ValueError(f"nested deeper than {MOST_DEPTH}")
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and _LONG_NUMBER.fullmatch(event.value):
            raise ValueError("a number of more than 200 digits")
    try:
        _check_keys(yaml.compose(text, loader))
        return yaml.load(text, loader)
    except (AttributeError, LookupError, TypeError) as error:  # of a value that is not what its tag says: `!!timestamp x`
        raise ValueError(f"a value is not of its tag ({error})") from None


def _check_keys(top: yaml.Node | None) -> None:
    """Refuse a key that is there twice in a mapping, of which the parser takes the last."""
    nodes = [top]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if len(set(keys)) < len(keys):
                raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} is there twice")
            nodes += [value for _, value in node.value]


def _front(data: Mapping[str, Any]) -> str:
    # not ModelCardData.to_yaml: it would write a tuple with a tag that no safe reader takes, and break long lines
    return f"---\n{yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)}---\n"


def split(card: str) -> tuple[dict[str, Any], str]:
    """A card's metadata and text; metadata that are not a mapping, or too long, are a ConfigError.

    Not by the client's `ModelCard`: it loses a key without a value, and refuses a card whose model-index, which zoo writes
    anew, is broken.
    """
    if len(card) > MOST_CARD:
        raise ConfigError(f"README.md has more than {MOST_CARD >> 20} MB. Make it shorter.")
    found = _FRONT.match(card)
    if found is None:
        return {}, card
    if len(found[1]) > MOST_METADATA:
        raise ConfigError(f"README.md: its metadata (between the lines ---) have more than {MOST_METADATA >> 10} kB.")
    try:
        data = _load(found[1]) or {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError: also "2024-99-99"
        text = " ".join(str(error).split())[:300]
        raise ConfigError(f"README.md: its metadata (between the lines ---) are not YAML: {text}") from None
    if not isinstance(data, dict):
        raise ConfigError("README.md: its metadata (between the lines ---) must be `key: value` lines.")
    return data, card[found.end() :]


# ---------------------------------------------------------------- edited by hand, or not


def _digest(text: str) -> str:
    return hashlib.sha256(re.sub(r"\s+", " ", text).strip().encode()).hexdigest()


def edited(card: str) -> bool:
    """Whether somebody wrote the text of a card: it has no hash of zoo, or another."""
    text = split(card)[1].rstrip()
    start = text.rfind("<!-- zoo-card ")
    mark = None if start < 0 else _MARK.fullmatch(text, start)
    return bool(text) and (mark is None or mark[1] != _digest(text[:start]))


def renew(old: str, new: str) -> str:
    """`old` with the metadata of `new`: its text stays byte for byte, and so do metadata that zoo does not write.

    A text that nobody edited is replaced as a whole.
    """
    if not edited(old):
        return new
    (before, text), (fresh, _) = split(old), split(new)
    kept = {k: v for k, v in before.items() if k not in fresh and k not in MANAGED}
    tags = before.get("tags")
    if isinstance(tags, list):
        fresh["tags"] = list(dict.fromkeys([*fresh["tags"], *map(str, tags)]))
    return _front(fresh | kept) + text


# ---------------------------------------------------------------- the whole card


def _code(name: str, recipe: Recipe, parts: Sequence[str] = ()) -> str:
    """Python that draws four samples; a condition that no example can leave out has a placeholder in it.

    Args:
        name: what `zoo.load` takes.
        parts: those of the author's own, which no folder gives: "net", "codec", "diffusion".
    """
    needed = {k: text for k, c in recipe.conditions.items() if (text := c.placeholder()) is not None}
    arguments = "".join(f"{k}={text}, " for k, text in needed.items())
    zeros = [k for k, text in needed.items() if "np." in text]
    imports = "import numpy as np\nimport zoo" if zeros else "import zoo"
    own = f"# your own {' and '.join(zeros)} instead of zeros\n" if zeros else ""
    made = "".join(f", {p}=Your{p.capitalize()}()" for p in parts)
    if parts:
        own = f"# its author's own {' and '.join(parts)}: a folder never names code\n" + own
    if recipe.role == "first_stage":
        load = f"model = zoo.load({json.dumps(name, ensure_ascii=False)}{made})"
        lines = [
            f"import zoo\n\n{own}{load}",
            "objects = [item for item, _ in model.domain.example_data(model.recipe, 4)]  # made up: give your own",
            "latents = model.encode(objects)",
            'model.decode(latents).save("out/")',
        ]
        return "```python\n" + "\n".join(lines) + "\n```\n"
    sample = f"{own}samples = zoo.load({json.dumps(name, ensure_ascii=False)}{made}).sample(n=4, {arguments}seed=0)"
    return f'```python\n{imports}\n\n{sample}\nsamples.save("out/")\n```\n'


def _stage(stage: FirstStage) -> str:
    """What a latent model's card says of its first stage: the weights are in the model, and have a licence of their own."""
    about = stage.recipe or {}
    facts = {k: str(about.get(k, "")).strip() for k in ("description", "data", "licence")}
    sha = f" (SHA-256 of its weights: {stage.sha256})" if stage.sha256 else ""
    lines = [f"The net works on the latents of {stage.name}{sha}. {facts['description']}".rstrip()]
    lines += [f"{title}: {facts[k]}" for title, k in (("Its data", "data"), ("Its licence", "licence")) if facts[k]]
    return "\n\n".join(lines)


def place(folder: PurePath) -> str:
    """A folder as `zoo.load` takes it, whatever models have its name."""
    text = folder.as_posix()
    return text if folder.is_absolute() or text.startswith((".", "~")) else f"./{text}"


def model_card(
    recipe: Recipe,
    evaluation: Mapping[str, Any] | None = None,
    picture: str | None = None,
    curves: Mapping[str, Any] | None = None,
    *,
    domain: Searched | None = None,
    source: str | None = None,
    sounds: Sequence[str] = (),
    base: str = "",
    command: str | None = None,
    parts: Sequence[str] = (),
) -> str:
    """The card as Markdown with YAML metadata.

    Args:
        evaluation: what `zoo eval` measured; its protocol may hold `training` and the `command` that made the model.
        picture: name of the sample picture in the folder.
        domain: the recipe's; default: the one of its name.
        source: what `zoo.load` takes: a folder, see `place`, or a repository; default the registry name.
        parts: what its author must give to `zoo.load` beside it: "net", "codec", "diffusion".
        sounds: names of sound samples in the folder.
        base: where the folder is on the web, ending in "/": a player in Markdown needs the whole address.
        command: the command that trained the model, where the evaluation does not say it.
    """
    name = f"{recipe.domain}/{recipe.name}"
    parts = [
        f"\n# {name}\n\n{recipe.description}\n" if recipe.description else f"\n# {name}\n",
        _code(source or name, recipe, parts),
    ]
    if picture:
        parts.append(f"![samples]({picture})\n")
    if sounds:
        parts.append("\n".join(f'<audio controls src="{base}{s}"></audio>' for s in sounds) + "\n")
    made = {"command": command} if command else {}
    if evaluation:
        protocol = dict(evaluation["protocol"])
        made |= {k: protocol.pop(k) for k in ("command", "training") if k in protocol}
        lines = "\n".join(f"* {k.replace('_', ' ')}: {v}" for k, v in protocol.items())
        parts.append(f"## Quality\n\n{metrics_table(evaluation)}\n\nProtocol:\n\n{lines}\n")
    if curves:
        p = curves["protocol"]
        how = f"{p['n']} samples each against the {p['split']} set, the network in {p['precision']}; the rest at the defaults."
        parts.append(f"## Other settings\n\n{how}\n\n{curves_table(curves)}\n")
    if recipe.role == "first_stage":
        parts.append("## First stage\n\nAn autoencoder: it turns objects into latents and back. Nothing is sampled from it.\n")
    else:
        parts.append(f"## Default setting\n\n{default_setting(recipe.sampling)}\n")
    if recipe.stage is not None:
        parts.append(f"## First stage\n\n{_stage(recipe.stage)}\n")
    if made:
        lines = "".join(f"    {line}\n" for line in made.get("command", "").splitlines())
        text = "\n\n".join(t for t in (made.get("training", ""), lines) if t)
        parts.append(f"## How it was made\n\n{text.rstrip()}\n")
    facts = [("Data", recipe.data), ("Licence", recipe.licence), ("Method", recipe.paper)]
    parts += [f"## {title}\n\n{text}\n" for title, text in facts if text]
    text = "\n".join(parts)
    return f"{_front(metadata(recipe, evaluation, domain))}{text}\n<!-- zoo-card {_digest(text)} -->\n"
