"""How many multiplications the re-ranker needs, in the paper's form and in the served one."""

from __future__ import annotations

from onnx_export.models import ModelSizes


def plain_macs(sizes: ModelSizes, length: int) -> float:
    """Multiply-adds per candidate in the paper's form: keys and values of every token, layer and stream projected."""
    width, rows, dims = sizes.text_width, sizes.token_rows, sizes.image_width
    own = 4 * length * width**2 + 2 * length**2 * width
    cross = 2 * length * width**2 + 2 * rows * dims * width + 2 * length * rows * width
    feed_forward = 2 * length * width * sizes.feed_forward
    merges = (sizes.text_depth - sizes.merge_layers_from) * 2 * length * width**2
    return sizes.text_depth * 2 * (own + cross + feed_forward) + merges + 2 * width**2 + 2 * width


def served_macs(
    sizes: ModelSizes, length: int, candidates: int, chunk: int, *, stored: tuple[int, int] | None = None
) -> float:
    """Multiply-adds for K candidates in the exported graph, run ``chunk`` at a time.

    The key and value projections are absorbed, the last layer is computed for its first row, and the first
    self-attention with the first absorbed queries once per run. ``stored`` are rows and dimensions of compressed
    tokens; without it all are read.
    """
    width, heads = sizes.text_width, sizes.text_heads
    rows, dims = (sizes.token_rows, sizes.image_width) if stored is None else stored
    total = 0.0
    runs = -(-candidates // chunk)
    for layer in range(sizes.text_depth):
        states = 1 if layer == sizes.text_depth - 1 else length
        own = 2 * states * width**2 + 2 * length * width**2 + 2 * states * length * width
        queries = states * width**2 + states * width * dims
        reading = 2 * heads * states * rows * dims + states * dims * width + states * width**2
        feed_forward = 2 * states * width * sizes.feed_forward
        merge = 2 * states * width**2 if layer >= sizes.merge_layers_from else 0
        shared = runs if layer == 0 else candidates
        total += shared * 2 * (own + queries) + candidates * (2 * (reading + feed_forward) + merge)
    return total + candidates * (2 * width**2 + 2 * width)
