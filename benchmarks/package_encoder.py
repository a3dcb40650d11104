"""Package a table of word vectors as a text encoder of zoo: the frozen part of a model's text condition.

    python benchmarks/package_encoder.py ../shared/data/text/word_vectors.npz minilm-words

It writes zoo/checkpoints/text/NAME: encoder.safetensors (vectors int8, scale float32, words as UTF-8), encoder.json with
its SHA-256, and a card. The same input gives the same bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from zoo import files
from zoo.contract.words import FILE, TABLES
from zoo.data.archive import read_archive

CARD = """---
license: apache-2.0
base_model: sentence-transformers/all-MiniLM-L6-v2
---

# {name}: {count:,} English words as {size} numbers

The frozen part of zoo's text condition (`zoo.contract.text.Text`): word i is `vectors[i] * scale[i] / 127`.

- Source: each word alone through sentence-transformers/all-MiniLM-L6-v2 (mean over tokens, unit length), centred, first
  {size} principal directions (67 % of the variance), rounded to int8. Words: whole words of its own vocabulary, and those of
  the captions and keywords of the pictures that `image/emoji-text` is trained on.
- Licence: **Apache-2.0** (sentence-transformers/all-MiniLM-L6-v2). Changes: words alone, fewer directions, int8.
- Made by `benchmarks/package_encoder.py` from `word_vectors.npz` (SHA-256 {source}).
- SHA-256 of {file}: {digest}
"""


def main() -> None:
    """Read the archive, write the folder."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("archive", type=Path, help="word_vectors.npz: words, vectors, scale")
    p.add_argument("name", help="the encoder's id")
    args = p.parse_args()
    found = read_archive(args.archive, ("words", "vectors", "scale"), "word vectors")
    words = [str(w) for w in found["words"]]
    text = np.frombuffer("\n".join(words).encode(), np.uint8).copy()
    folder = TABLES / args.name
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        "vectors": torch.from_numpy(found["vectors"]),
        "scale": torch.from_numpy(found["scale"]),
        "words": torch.from_numpy(text),
    }
    files.save_tensors(folder / FILE, tensors)
    digest, source = files.hash_of(folder / FILE), files.hash_of(args.archive)
    count, size = found["vectors"].shape
    about = {"id": args.name, "sha256": digest, "words": count, "size": size, "licence": "Apache-2.0", "source_sha256": source}
    files.write_atomic(folder / "encoder.json", files.dump_json(about))
    card = CARD.format(name=args.name, count=count, size=size, source=source, file=FILE, digest=digest)
    files.write_atomic(folder / "README.md", card.encode())
    print(f"{folder}: {digest}")


if __name__ == "__main__":
    main()
