"""python -m zoo.point3d.train --data DIR --out runs/mine --steps 20000"""

import sys

from zoo.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", "point3d/shapes-ddpm", *sys.argv[1:]]))
