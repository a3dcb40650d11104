import pytest
import torch

from zoo.core.seeds import SampleRng, check_seed, derive_seed, generator
from zoo.errors import ConfigError


def test_a_sample_has_its_own_numbers_whatever_the_batch():
    whole = SampleRng(7, range(6))
    parts = [SampleRng(7, r) for r in (range(0, 1), range(1, 4), range(4, 6))]
    for _ in range(3):
        want = whole.normal(torch.zeros(6, 3, 2))
        got = torch.cat([p.normal(torch.zeros(len(p.generators), 3, 2)) for p in parts])
        assert torch.equal(got, want)


def test_seeds_and_samples_are_unrelated():
    numbers = torch.stack([SampleRng(s, range(8)).normal(torch.zeros(8, 500)) for s in range(8)]).reshape(64, 500)
    correlation = torch.corrcoef(numbers) - torch.eye(64)
    assert correlation.abs().max() < 0.25
    assert len({derive_seed(a, b) for a in range(50) for b in range(50)}) == 2500
    assert derive_seed(1, 2) != derive_seed(2, 1)


def test_noise_is_standard_normal_and_the_same_in_every_dtype():
    a = SampleRng(0, [0]).normal(torch.zeros(1, 100_000))
    assert a.mean().item() == pytest.approx(0, abs=0.02)
    assert a.std().item() == pytest.approx(1, abs=0.01)
    for dtype in (torch.bfloat16, torch.float64):
        assert torch.equal(SampleRng(0, [0]).normal(torch.zeros(1, 100_000, dtype=dtype)), a.to(dtype))


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    want = torch.rand(1)
    torch.manual_seed(0)
    SampleRng(3, range(4)).normal(torch.zeros(4, 5))
    generator(1, 2)
    assert torch.equal(torch.rand(1), want)


@pytest.mark.parametrize("seed", [1.5, "x", True])
def test_errors(seed):
    with pytest.raises(ConfigError, match="whole number"):
        check_seed(seed)
    assert isinstance(check_seed(None), int)


def test_wrong_batch():
    with pytest.raises(ConfigError, match="2 generators"):
        SampleRng(0, range(2)).normal(torch.zeros(3, 1))


def test_a_sample_of_its_own_size_has_its_own_noise_whatever_the_padding():
    sizes = [5, 37, 20]
    alone = [SampleRng(0, [i]).normal(torch.zeros(1, n, 3))[0] for i, n in enumerate(sizes)]
    for N in (37, 64):
        together = SampleRng(0, range(3), sizes).normal(torch.zeros(3, N, 3))
        for row, own, n in zip(together, alone, sizes, strict=True):
            assert torch.equal(row[:n], own) and not row[n:].any()
    other = SampleRng(0, range(3), sizes, axis=1).normal(torch.zeros(3, 3, 64))
    for row, n in zip(other, sizes, strict=True):
        assert row[:, :n].any() and not row[:, n:].any(), "the axis of sizes may be another one"
    with pytest.raises(ConfigError, match="2 sizes"):
        SampleRng(0, range(3), [1, 2])
