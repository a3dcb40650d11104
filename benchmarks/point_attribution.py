"""Write zoo/point3d/ATTRIBUTION.md: author, source and licence of each shape that the packaged models were trained on.

python benchmarks/point_attribution.py pointcloud_furniture_cc.npz
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

import zoo.point3d

TARGET = Path(zoo.point3d.__file__).with_name("ATTRIBUTION.md")
LINKS = {
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY-3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC-BY-3.0-US": "https://creativecommons.org/licenses/by/3.0/us/",
}
HEAD = """# Attribution

`point3d/shapes-ddpm` and its judge were trained on point clouds sampled from these meshes, brought to one size. Changes to the
originals: only points of their surfaces are used. Sources: the Debian package sweethome3d-furniture (Blend Swap's artists,
Scopia, Andrew Kator & Jennifer Legaz), Quaternius (quaternius.com), Kenney (kenney.nl).

| author | source | licence | shapes |
| --- | --- | --- | --- |
"""


def attribution(archive: Path) -> str:
    """One line of each author, source and licence, with the names of the shapes and how many have one."""
    with np.load(archive, allow_pickle=False) as z:
        rows = zip(*(map(str, z[k]) for k in ("author", "source", "licence", "name")), strict=True)
    shapes: dict[tuple[str, str, str], Counter[str]] = {}
    for *origin, name in rows:
        shapes.setdefault((origin[0], origin[1], origin[2]), Counter())[name] += 1
    lines = [
        f"| {author} | {source} | [{licence}]({LINKS[licence]}) | "
        + ", ".join(name if n == 1 else f"{name} ({n})" for name, n in sorted(names.items()))
        + " |"
        for (author, source, licence), names in sorted(shapes.items())
    ]
    return HEAD + "\n".join(lines) + "\n"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("archive", type=Path)
    TARGET.write_text(attribution(p.parse_args().archive), encoding="utf-8")


if __name__ == "__main__":
    main()
