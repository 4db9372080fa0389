"""The unlabelled images that pretraining sees: blocks of pixels, gathered by number, and nothing else."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image


class Pixels:
    """Images in a few contiguous blocks, in shared memory or a mapped file; a batch is one copy out of them.

    There is no way from here to a label: a block is a uint8 array [n, H, W] and that is all a method can reach.
    """

    def __init__(self, blocks: Sequence[np.ndarray], prefetch: Callable[[np.ndarray], None] | None = None) -> None:
        """Take uint8 blocks [n_i, H, W] of equal H and W; they are not copied.

        Before a batch is copied, `prefetch` gets its numbers, counted through all blocks.
        """
        if not blocks or not sum(len(block) for block in blocks):
            raise ValueError("expected at least one image")
        self.blocks = [block for block in blocks if len(block)]
        self._prefetch = prefetch
        self._kept: np.ndarray | None = None  # numbers of the images that are left; None: all
        self._starts = np.cumsum([0, *(len(block) for block in self.blocks)])
        for block in self.blocks:
            if block.dtype != np.uint8 or block.ndim != 3 or block.shape[1:] != self.blocks[0].shape[1:]:
                raise ValueError(f"expected uint8 blocks [n, H, W] of one size, got {block.dtype} {block.shape}")

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._kept is None else len(self._kept)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.blocks[0].shape[1], self.blocks[0].shape[2]

    def without(self, index: np.ndarray) -> "Pixels":
        """The same blocks without the images of these numbers; the others are numbered anew, in their order."""
        rest = Pixels(self.blocks, self._prefetch)
        rest._kept = np.delete(np.arange(len(self)) if self._kept is None else self._kept, index)
        return rest

    def gather(self, index: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The images of these numbers (0 to len - 1, any order) as uint8 [len(index), H, W].

        Args:
            index: the numbers.
            out: where to put them, uint8 [len(index), H, W], such as pinned memory; new memory by default.
        """
        shape = (len(index), *self.shape)
        out = np.empty(shape, np.uint8) if out is None else out
        if out.shape != shape or out.dtype != np.uint8:
            raise ValueError(f"expected out to be uint8 {shape}, got {out.dtype} {out.shape}")
        if self._kept is not None:
            index = self._kept[index]
        if self._prefetch is not None:
            self._prefetch(index)
        block_of = np.searchsorted(self._starts, index, side="right") - 1
        row_of = index - self._starts[block_of]
        # One image at a time, because indexing with all of `row_of` copies a block's images twice.
        for image, block, row in zip(out, block_of.tolist(), row_of.tolist(), strict=True):
            image[...] = self.blocks[block][row]
        return out


def reduce_images(images: np.ndarray, size: int) -> np.ndarray:
    """Reduce uint8 images [N, H, W] to `size` × `size`, Lanczos."""
    reduced: Sequence[np.ndarray] = [
        np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS)) for image in images
    ]
    return np.stack(reduced) if len(images) else np.empty((0, size, size), np.uint8)
