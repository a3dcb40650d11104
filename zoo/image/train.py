"""python -m zoo.image.train --data DIR --out runs/mine --steps 20000"""

import sys

from zoo.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", "image/fashion-ddpm", *sys.argv[1:]]))
