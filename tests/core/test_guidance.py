import math

import pytest
import torch

from zoo.core.diffusion import to_x0_eps
from zoo.core.guidance import Guidance, deviation, drop, is_null, null_like
from zoo.core.schedule import DiscreteSchedule
from zoo.errors import ConfigError

X = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_scale_is_weight_plus_one():
    assert Guidance.from_public(None, 3.0) == Guidance.from_public(2.0, None) == (2.0, {})
    assert Guidance.from_public(None, None, 0.5) == (0.5, {})
    assert (
        Guidance.from_public({"label": 2.0}, None, 0.5) == Guidance.from_public(None, {"label": 3.0}) == (0.0, {"label": 2.0})
    )
    with pytest.raises(ConfigError, match="two forms of one number"):
        Guidance.from_public(1.0, 2.0)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_guidance_commutes_with_the_conversions(prediction):
    level, g = DiscreteSchedule().level(400), Guidance(2.0)
    c, n = torch.tanh(X), torch.sin(X)
    guided = to_x0_eps(g.combine(c, n), X, level, prediction)
    parts = [to_x0_eps(o, X, level, prediction) for o in (c, n)]
    for got, a, b in zip(guided, *parts, strict=True):
        torch.testing.assert_close(got, 3 * a - 2 * b, rtol=1e-10, atol=1e-10)


def test_interval_is_open_below_and_closed_above():
    s = DiscreteSchedule()
    lo, hi = s.level(200).ratio, s.level(600).ratio
    g = Guidance(1.0, (lo, hi))
    assert [g.active(s.level(t)) for t in (199, 200, 201, 600, 601)] == [False, False, True, True, False]


def test_rescale_brings_the_deviation_back():
    c, n = X, -X
    out = Guidance(3.0, rescale=1.0).combine(c, n)
    torch.testing.assert_close(out.std(1), c.std(1))
    half = Guidance(3.0, rescale=0.5).combine(c, n)
    torch.testing.assert_close(half, 0.5 * out + 0.5 * Guidance(3.0).combine(c, n))


def test_rescale_looks_at_real_elements_alone():
    """A padded sample is guided as it is alone, whatever its padding holds."""
    cond, null = X[:1], torch.sin(X[:1])
    padded = [torch.cat([v, torch.full((1, 3), 50.0 * (i + 1))], 1) for i, v in enumerate((cond, null))]
    real = torch.tensor([[True] * 4 + [False] * 3])
    guidance = Guidance(2.0, rescale=0.7)
    alone = guidance.combine(cond, null, real=torch.ones(1, 4, dtype=torch.bool))
    torch.testing.assert_close(guidance.combine(*padded, real=real)[:, :4], alone)
    torch.testing.assert_close(alone, guidance.combine(cond, null))
    torch.testing.assert_close(deviation(padded[0], real), cond.std(1, keepdim=True))


def test_what_is_not_given_has_one_form():
    label, array = torch.tensor([2, 0, -1]), torch.tensor([[1.0, 2.0], [math.nan, 3.0], [0.0, 0.0]])
    assert is_null(label).tolist() == [False, False, True] and is_null(array).tolist() == [False, True, False]
    assert is_null(null_like(label)).all() and is_null(null_like(array)).all()
    assert null_like(label).dtype == label.dtype and null_like(array).shape == array.shape
    rows = torch.tensor([True, False, False])
    dropped = drop({"label": label, "array": array}, rows)
    assert dropped["label"].tolist() == [-1, 0, -1]
    assert is_null(dropped["array"]).tolist() == [True, True, False] and torch.equal(dropped["array"][2], array[2])


def test_numbers_of_numpy_and_torch_are_plain_inside():
    import numpy as np

    guidance = Guidance(np.float64(1.5))
    assert type(guidance.weight) is float and guidance == Guidance(torch.tensor(1.5))
    assert Guidance.from_public({"label": np.int64(2)}, None) == (0.0, {"label": 2})


@pytest.mark.parametrize(
    "options", [{"weight": math.nan}, {"interval": (2.0, 1.0)}, {"rescale": 2.0}, {"each": {"label": "x"}}]
)
def test_errors(options):
    with pytest.raises(ConfigError, match="guidance"):
        Guidance(**options)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_what_has_no_value_for_not_given_is_refused(dtype):
    with pytest.raises(ConfigError, match="not given"):
        null_like(torch.zeros(3, dtype=dtype))
