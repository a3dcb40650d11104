"""Chains of models: one call, one seed, and what does not fit together."""

import pytest
import torch

import zoo
from zoo.contract.small import SmallSample
from zoo.core import seeds
from zoo.errors import ConfigError, ShapeError
from zoo.evaluation.evaluate import Evaluator, evaluate
from zoo.image.domain import DOMAIN
from zoo.image.recipes import RECIPES
from zoo.model.model import Model

TINY = {
    "net.channels": 8,
    "net.multipliers": [1],
    "net.attention": [False],
    "net.cross": [True],
    "net.blocks": 1,
    "net.patch": 1,
    "net.heads": 2,
    "net.emb_dim": 16,
}
TWO = [{"steps": 2}, {"steps": 3}]


def made(name, size, low=None):
    """A tiny untrained model whose output is not zero."""
    recipe = RECIPES[name].override(TINY | {"codec.size": size})
    if low is not None:
        recipe = recipe.model_copy(update={"conditions": recipe.conditions | {"low": SmallSample(shape=(3, low, low))}})
    model = Model(recipe, DOMAIN)
    with torch.no_grad():
        for i, p in enumerate(model.denoiser.parameters()):
            p += 0.1 * torch.randn(p.shape, generator=seeds.generator(i))
    return model


@pytest.fixture(scope="module")
def chain():
    return zoo.Chain([made("emoji-32", 4), made("emoji-up", 8, 4)])


def test_each_model_makes_its_sample_from_that_of_the_one_before(chain):
    assert chain.conditions == ["text", "style"] and chain.links == ["low"]
    assert repr(chain) == "Chain(image/emoji-32, image/emoji-up)"
    small, large = chain.sample_iter(2, text="red car", style=["noto", "twemoji"], seed=3, stages=TWO)
    assert small.tensor.shape == (2, 3, 4, 4) and large.tensor.shape == (2, 3, 8, 8)
    assert small.plan.steps == 2 and large.plan.steps == 3
    assert large.conditions == {"text": ["red car"] * 2, "style": ["noto", "twemoji"]}
    low = large.plan.cond["low"]
    share = 0.1
    noise = (low[:, :3] - (1 - share**2) ** 0.5 * small.tensor) / share
    assert 0.7 < noise.std() < 1.3, "the sample of the model before, with some noise"
    assert large.plan.seed != small.plan.seed


def test_a_sample_of_a_seed_is_the_same_whatever_n_is(chain):
    two = chain.sample(2, text="red car", style="noto", seed=3, stages=TWO)
    one = chain.sample(1, text="red car", style="noto", seed=3, stages=TWO)
    torch.testing.assert_close(one.tensor[0], two.tensor[0], atol=0.02, rtol=0)
    other = chain.sample(1, text="red car", style="noto", seed=4, stages=TWO)
    assert not torch.allclose(other.tensor, one.tensor, atol=0.1)
    assert chain.sample(1, stages=TWO).plan.seed != chain.sample(1, stages=TWO).plan.seed


def test_what_does_not_fit_together_is_refused(chain):
    base, up = chain.models
    for wrong in ([base], [], base, [base, "emoji-up"]):
        with pytest.raises(ConfigError, match="two models or more"):
            zoo.Chain(wrong)
    with pytest.raises(ConfigError, match=r"text \(text\), style \(label\)"):
        zoo.Chain([base, base])
    with pytest.raises(ShapeError, match=r"makes samples \(3, 4, 4\), and .* takes \(3, 8, 8\)"):
        zoo.Chain([base, made("emoji-up", 8, 8)])
    with pytest.raises(ConfigError, match="give models of one"):
        zoo.Chain([zoo.create("audio/spec-ddpm"), up])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label": "x"}, r"unknown condition of Chain\(.*'label'.*Allowed: text, style"),
        ({"low": 1}, "unknown condition"),
        ({"steps": 3}, "unknown condition"),
        ({"stages": [{}]}, "give 2 dictionaries"),
        ({"stages": [{}, 3]}, "give 2 dictionaries"),
        ({"stages": [{}, {"low": 1}]}, "'low' is the chain's"),
        ({"stages": [{"seed": 1}, {}]}, "'seed' is the chain's"),
        ({"stages": [{"stepps": 1}, {}]}, "stepps"),
    ],
)
def test_a_wrong_argument_is_one_clear_error(chain, arguments, message):
    with pytest.raises(ConfigError, match=message):
        chain.sample(1, **arguments)


def test_a_chain_is_measured_like_a_model(chain):
    class Looks(Evaluator):
        def check(self, model):
            assert model.recipe.name == "emoji-up" and model.codec.shape == (3, 8, 8) and model.domain is DOMAIN

        def asked(self, model, n, seed):
            return {"text": ["red car"] * n}

        def measure(self, made, **options):
            return {"metrics": {"pictures": len(made)}, "protocol": {}}

    result = evaluate(chain, 2, evaluator=Looks(), stages=TWO)
    assert result["metrics"]["pictures"] == 2 and result["protocol"]["steps"] == 3
