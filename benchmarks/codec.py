"""What candidate tokens lose in fewer rows, fewer dimensions and 8 bits: bytes against loss.

    python -m benchmarks.codec --images DIR --full-size     # an encoder of the paper's sizes, random weights
    python -m benchmarks.codec --images DIR                 # of the bundle `drawn`

Half of the pictures fit the projection of every form, as plain principal components; the loss is measured on the other
half, as the share of the tokens' variance that the restored tokens do not have. No re-ranker takes
part: ``python -m benchmarks.quality --only compression`` measures recall. With random weights the result describes the
codec on real pictures at that size, not what it costs a trained model.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import describe_machine, write_json
from onnx_export.bundle.token_projection import fit_projection
from onnx_export.bundle.weights import load_start
from onnx_export.export import BLIP_MEAN, BLIP_STD, PAD_RATIO
from onnx_export.models import BLIP_BASE, CirModel, build_model
from qdrant_cir.evaluation.token_loss import lost_share
from qdrant_cir.indexing.sources import ImageRecord, sample_images
from qdrant_cir.model.manifest import PreprocessingSpec
from qdrant_cir.model.preprocess import read_pixels
from qdrant_cir.tokens.codec import encode_merged_tokens, quantize
from qdrant_cir.tokens.compression import MergedTokens, TokenProjection, expand_rows, merge_rows
from qdrant_cir.types import Float32

ROW_SHARES = (1, 3, 6, 12)
"""All rows, a third, a sixth, a twelfth."""
DIM_SIXTEENTHS = (16, 8, 5, 3)
"""All dimensions, and so many sixteenths."""


@dataclass(frozen=True, slots=True)
class Row:
    """One stored form."""

    rows: int
    dims: int
    kilobytes: float
    lost: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="a folder of pictures")
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--full-size", action="store_true", help="the paper's sizes instead of the bundle `drawn`")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    asked = parser.parse_args()
    model = build_model(BLIP_BASE) if asked.full_size else load_start(Path("drawn")).model
    records = sample_images(asked.images, asked.pictures)
    tokens = encode(model, [record for record in records if isinstance(record, ImageRecord)])
    print(f"{len(tokens)} pictures, {tokens.shape[1]} tokens of {tokens.shape[2]}", flush=True)
    print("| rows x dimensions | KB per picture | variance lost |\n| --- | ---: | ---: |")
    rows = []
    for row in frontier(tokens):
        print(f"| {row.rows} x {row.dims} | {row.kilobytes:.1f} | {row.lost:.2%} |", flush=True)
        rows.append(row)
    if asked.json is not None:
        machine = describe_machine(torch.get_num_threads(), packages=("torch", "numpy"))
        write_json(asked.json, machine, [asdict(row) for row in rows])


@torch.inference_mode()
def encode(model: CirModel, records: list[ImageRecord]) -> Float32:
    """Encode pictures to tokens float32 [P, N, C]."""
    spec = PreprocessingSpec(size=model.sizes.image_size, pad_ratio=PAD_RATIO, mean=BLIP_MEAN, std=BLIP_STD)
    found = [
        model.image_encoder.visual_encoder(torch.from_numpy(read_pixels(record.image, spec))[None])
        for record in records
    ]
    tokens: Float32 = torch.cat(found).numpy()
    return tokens


def frontier(tokens: Float32) -> list[Row]:
    """Measure every form on every second picture, fitted on the others."""
    fitted, measured = tokens[::2], tokens[1::2]
    count, width = tokens.shape[1:]
    every = fit_projection(fitted.reshape(-1, width), width, np.eye(width, dtype=np.float32))
    found = []
    for share in ROW_SHARES:
        merged = merge_rows(measured, max(3, -(-count // share)))
        for sixteenths in DIM_SIXTEENTHS:
            dims = width * sixteenths // 16
            projection = TokenProjection(every.mean, every.down[:, :dims], every.up[:dims])
            reduced = projection.reduce(merged.tokens)
            stored = quantize(reduced, "int8")
            numbers = stored.values.astype(np.float32) * stored.scales[..., None]
            restored = expand_rows(MergedTokens(projection.restore(numbers), merged.weights))
            encoded = encode_merged_tokens(MergedTokens(reduced[:1], merged.weights[:1]), "int8", 1)
            found.append(Row(merged.tokens.shape[1], dims, len(encoded) / 1000, lost_share(measured, restored)))
    return found


if __name__ == "__main__":
    main()
