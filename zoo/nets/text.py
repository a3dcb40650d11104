"""The trained part of a text condition: frozen word vectors -> a small transformer -> tokens, and one vector."""

from __future__ import annotations

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from zoo.errors import ConfigError, ShapeError
from zoo.nets.blocks import Attention, Told, end


class TextBlock(nn.Module):
    """Self-attention and a two-layer net, each after a norm and added to what came (Xiong et al. 2020, pre-LN)."""

    def __init__(self, width: int, heads: int, ratio: int = 4) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, ratio * width), nn.GELU("tanh"), nn.Linear(ratio * width, width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B,L,width), mask (B,L) bool, True for words -> (B,L,width)."""
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class TextEmbedding(nn.Module):
    """Texts as rows of a frozen table (B,L) int64 -> tokens (B,L,dim) and one vector (B,dim).

    A value k > 0 is row k - 1 of the table, 0 is no word (padding), and a row of the batch with a negative value is not given:
    it has one token alone, the learned null. The table is neither trained nor saved with the weights: it comes from its own
    file, whose hash the recipe names.

    Args:
        vectors: (n, size) int8, the table.
        scale: (n,) float32; word i is vectors[i] * scale[i] / 127.
        dim: of tokens and vector.
        length: L.
        width, depth, heads: of the transformer.

    Raises:
        ShapeError: values that are not (batch, L).
        ConfigError: a row that the table does not have (looked at on the CPU only: elsewhere it would stall the device).
    """

    vectors: Tensor
    scale: Tensor

    def __init__(
        self, vectors: Tensor, scale: Tensor, dim: int, length: int, width: int = 128, depth: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        self.dim, self.length = dim, length
        self.register_buffer("vectors", vectors, persistent=False)
        self.register_buffer("scale", scale.float() / 127, persistent=False)
        # a component of a unit vector is about size^-0.5: brought to about 1, as layers like it
        self.gain = vectors.shape[1] ** 0.5
        self.entry = end(nn.Linear(vectors.shape[1], width))
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList([TextBlock(width, heads) for _ in range(depth)])
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, dim)
        self.null = nn.Parameter(0.02 * torch.randn(dim))
        self.pool = nn.Linear(dim, dim)

    def blank(self) -> None:
        """A vector of zeros for every text: a condition that is added to a trained net starts so."""
        nn.init.zeros_(self.pool.weight)
        nn.init.zeros_(self.pool.bias)

    def told(self, values: Tensor | None, batch: int) -> Told:
        """values (batch,L) int64 or None -> vector (batch,dim), tokens (batch,L,dim) and mask (batch,L) bool."""
        if values is None:
            values = torch.full((batch, self.length), -1, device=self.vectors.device)
        if values.shape != (batch, self.length):
            raise ShapeError(f"texts {tuple(values.shape)} must be (batch, words) = {(batch, self.length)}.")
        if (
            values.device.type == "cpu"
            and batch
            and not torch.compiler.is_compiling()
            and int(values.max()) > len(self.vectors)
        ):
            raise ConfigError(f"a text with the row {int(values.max())}: the table has {len(self.vectors)}.")
        none = (values < 0).any(1)
        mask = (values > 0) & ~rearrange(none, "b -> b 1")
        rows = (values - 1).clamp(min=0)
        dtype = self.positions.dtype
        words = self.vectors[rows].to(dtype) * (self.gain * self.scale[rows]).to(dtype)[..., None]
        x = self.entry(words) + self.positions
        for block in self.blocks:
            x = block(x, mask)
        tokens = self.out(self.norm(x))
        first = torch.arange(self.length, device=values.device) == 0
        tokens = torch.where(rearrange(none, "b -> b 1 1"), self.null.to(tokens.dtype), tokens)
        # of a row without any word the first token is read: the null, so that no softmax is over nothing
        mask = mask | (first & ~mask.any(1, keepdim=True))
        real = rearrange(mask, "b l -> b l 1").to(tokens.dtype)
        mean = reduce(tokens * real, "b l d -> b d", "sum") / reduce(real, "b l 1 -> b 1", "sum")
        return Told(self.pool(mean), tokens, mask)

    def forward(self, values: Tensor | None, batch: int) -> Tensor:
        """values (batch,L) int64 or None -> (batch, dim)."""
        vector: Tensor = self.told(values, batch).vector
        return vector
