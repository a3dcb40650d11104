import pytest
from chains import chain

from zoo.protein.backbone import Backbone


@pytest.fixture(scope="session")
def helix():
    return Backbone(chain(40), "helix")


@pytest.fixture(scope="session")
def coil():
    return Backbone(chain(40, -75.0, 140.0, seed=1), "coil")


@pytest.fixture
def pdb_lines(helix, tmp_path):
    """The lines of a PDB file of the helix."""
    return helix.save(tmp_path / "made.pdb").read_text().splitlines()


@pytest.fixture(scope="session")
def data_file(zoo_data):
    return zoo_data / "protein" / "protein_backbones.npz"
