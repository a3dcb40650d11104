import torch

from zoo.protein.pairs import windows


def test_windows_hold_the_points_of_neighbours():
    x = torch.arange(2 * 5 * 2 * 3.0).view(2, 5, 2, 3) + 1
    out = windows(x, 1)
    assert out.shape == (2, 5, 6, 3)
    for i in range(5):
        for k, j in enumerate((i - 1, i, i + 1)):
            there = x[:, j] if 0 <= j < 5 else torch.zeros(2, 2, 3)
            assert torch.equal(out[:, i, 2 * k : 2 * k + 2], there)
