import pytest
import torch
from chains import chain

import zoo
from zoo.core import seeds
from zoo.protein.backbone import Backbone


@pytest.fixture(scope="session")
def helix():
    return Backbone(chain(40), "helix")


@pytest.fixture(scope="session")
def coil():
    return Backbone(chain(40, -75.0, 140.0, seed=1), "coil")


@pytest.fixture(scope="module")
def model():
    """A small net of backbones with weights of all sizes."""
    torch.manual_seed(0)
    model = zoo.create("protein/backbone-ddpm", **{"net.dim": 32, "net.depth": 1, "net.heads": 2, "net.pair": 8})
    with torch.no_grad():
        for i, p in enumerate(model.denoiser.parameters()):
            p += 0.1 * torch.randn(p.shape, generator=seeds.generator(i))
    return model


@pytest.fixture
def pdb_lines(helix, tmp_path):
    """The lines of a PDB file of the helix."""
    return helix.save(tmp_path / "made.pdb").read_text().splitlines()


@pytest.fixture(scope="session")
def data_file(zoo_data):
    return zoo_data / "protein" / "protein_backbones.npz"
