"""A bundle whose candidate tokens are stored compressed, fitted on pictures of the user's own gallery.

The weights are read back from the bundle, the projection is fitted on the tokens of the pictures, and the re-ranker is
traced again with the projection in its weights. All other files stay byte for byte the same, so that a gallery of the
exact bundle can be used with the new one, and indexing it again brings it into the small form.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from onnx_export.bundle.token_projection import fit_projection, reading_metric
from onnx_export.bundle.weights import read_bundle_model
from onnx_export.errors import ExportError, VerificationError
from onnx_export.export import export_graph, tool_versions
from onnx_export.graphs import RerankerGraph
from onnx_export.model_folder import ModelFolder
from onnx_export.verify import torch_scores
from qdrant_cir.evaluation.token_loss import encode_pictures, fitting_record, lost_share
from qdrant_cir.indexing.sources import ImageRecord, RejectedRow
from qdrant_cir.model.bundle import (
    Bundle,
    Compression,
    GraphEntry,
    graph_entry,
    load_bundle,
    sha256_of,
    sorted_digests,
    write_manifest,
)
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.tokens.compression import TokenProjection, write_projection
from qdrant_cir.tokens.form import TokenForm
from qdrant_cir.types import Composition, StoredTokens

logger = logging.getLogger(__name__)

PROJECTION_FILE = "token_projection.npz"
LEAST_PICTURES = 20
MOST_BYTES = 24_000
_LAST_VERSION = 2**16 - 1
_TOLERANCE = 1e-4
_CHECKED_CANDIDATES, _CHECKED_LENGTH = 12, 9


@dataclass(frozen=True, slots=True)
class FittedCodec:
    """A fitted bundle, and what compression costs and saves.

    Attributes:
        folder: the new bundle.
        pictures: number of pictures that it was fitted on.
        skipped: pictures that could not be read, by name, with the reason.
        rows, dims: of the stored tokens.
        version: number of this fitting, written with stored tokens.
        bytes_before, bytes_after: of one image's stored tokens.
        lost: share of the tokens' variance that is lost, weighted by its effect on the score, on pictures that were
            not fitted.
        difference: largest difference between a score of the new graph and of torch on the restored tokens.
    """

    folder: Path
    pictures: int
    skipped: dict[str, str]
    rows: int
    dims: int
    version: int
    bytes_before: int
    bytes_after: int
    lost: float
    difference: float


def fit_codec(
    folder: Path,
    records: Sequence[ImageRecord | RejectedRow],
    out: Path,
    *,
    rows: int | None = None,
    dims: int | None = None,
    encoded: Callable[[int], object] = lambda count: None,
) -> FittedCodec:
    """Fit a compressed form of a bundle's tokens and write a new bundle with it.

    Args:
        folder: a bundle without compression.
        records: pictures like those of the gallery; a few hundred are enough. A tenth of them is kept for
            measuring.
        out: folder of the new bundle; must not exist.
        rows: M, rows to store of N tokens; by default as :func:`default_form` says.
        dims: R, dimensions to store of C; likewise.
        encoded: called with the number of pictures since the last call.

    Raises:
        BundleError: the bundle is missing or damaged.
        CheckpointError: its weights cannot be read back into torch.
        InputError: no picture can be read.
        ExportError: the bundle is compressed already, ``out`` exists, there are too few pictures, or a size is out of
            range.
        VerificationError: the new graph and torch disagree; nothing is written then.
    """
    bundle = load_bundle(folder)
    sizes = bundle.manifest.sizes
    if sizes.compression is not None:
        raise ExportError(f"{folder} stores compressed tokens already; give the bundle that it was fitted from.")
    if out.exists():
        raise ExportError(f"{out} exists; give a new folder.")
    default_rows, default_dims = default_form(sizes.token_rows, sizes.token_dims)
    rows, dims = default_rows if rows is None else rows, default_dims if dims is None else dims
    if not 3 <= rows <= sizes.token_rows:
        raise ExportError(f"Cannot store {sizes.token_rows} tokens in {rows} rows; give 3 to {sizes.token_rows}.")
    if not 1 <= dims <= sizes.token_dims:
        raise ExportError(f"Cannot store {sizes.token_dims} dimensions in {dims}; give 1 to {sizes.token_dims}.")
    model = read_bundle_model(bundle)
    found = encode_pictures(bundle, records, encoded=encoded)
    tokens = found.tokens
    if len(tokens) < LEAST_PICTURES:
        named = "".join(f" {name}: {reason}" for name, reason in list(found.skipped.items())[:3])
        raise ExportError(f"{len(tokens)} pictures could be read; fitting needs at least {LEAST_PICTURES}.{named}")
    held_out = tokens[::10]
    fitted = np.delete(tokens, np.s_[::10], axis=0).reshape(-1, sizes.token_dims)
    metric = reading_metric(model.model)
    projection = fit_projection(fitted, dims, metric)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        made = _write(bundle, model, projection, rows, Path(scratch) / "bundle")
        form, exact = TokenForm(made), TokenForm(bundle)
        small = [form.encode(image) for image in held_out]
        restored = form.restore(form.decode(small))
        _record(made, len(tokens), lost_share(held_out, restored))
        fit = FittedCodec(
            folder=out,
            pictures=len(tokens),
            skipped=dict(found.skipped),
            rows=rows,
            dims=dims,
            version=form.version,
            bytes_before=len(exact.encode(tokens[0])),
            bytes_after=len(small[0]),
            lost=lost_share(held_out, restored, metric),
            difference=_verify(made, model, form, form.decode(small[:_CHECKED_CANDIDATES])),
        )
        made.folder.rename(out)
    return fit


def default_form(rows: int, dims: int) -> tuple[int, int]:
    """Return the default rows and dimensions to store of so many.

    A third and a half, which costs the bundle `drawn` half a point of recall@1 and nothing of recall@10
    (``docs/quality.md``); a sixth and five sixteenths where that is more than ``MOST_BYTES``.
    """
    for rows_kept, dims_kept in ((-(-rows // 3), dims // 2), (-(-rows // 6), dims * 5 // 16)):
        form = max(3, rows_kept), max(1, dims_kept)
        if form[0] * form[1] <= MOST_BYTES:
            break
    return form


def _write(bundle: Bundle, model: ModelFolder, projection: TokenProjection, rows: int, folder: Path) -> Bundle:
    """Write the compressed bundle: the exact one's files, with a new re-ranker and the projection."""
    exact = bundle.manifest
    kept = {name: entry for name, entry in exact.graphs.items() if name != "reranker"}
    for file in [*(file for entry in kept.values() for file in entry.files), exact.tokenizer.file]:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.folder / file, folder / file)
    write_projection(folder / PROJECTION_FILE, projection)
    compression = Compression(
        rows=rows,
        dims=len(projection.up),
        version=_version_of(projection, rows),
        file=PROJECTION_FILE,
        sha256=sha256_of(folder / PROJECTION_FILE),
        exact_reranker=sorted_digests(exact.graphs["reranker"]),
    )
    # measured with all tokens, as graphs in other precisions read them
    measured = ("effort", "quality")
    provenance = {name: value for name, value in exact.provenance.items() if name not in measured}
    manifest = replace(
        exact,
        compression=compression,
        provenance={**provenance, "fitted_from": bundle.fingerprint, "tools": tool_versions()},
    )
    graph = RerankerGraph(model.model.reranker, model.model.similarity(), projection).eval()
    files = export_graph("reranker", graph, folder, manifest.sizes)
    graphs: dict[str, GraphEntry] = {
        **{name: replace(entry, variants={}) for name, entry in kept.items()},
        "reranker": graph_entry(folder, "reranker", files, manifest.sizes),
    }
    write_manifest(folder, replace(manifest, graphs=graphs))  # type: ignore[arg-type]
    return load_bundle(folder)


def _version_of(projection: TokenProjection, rows: int) -> int:
    """Return a number from 1 to 65535 that depends on a fitting's content alone, to tell fittings apart."""
    content = b"".join(array.tobytes() for array in (projection.mean, projection.down, projection.up))
    digest = hashlib.sha256(content + rows.to_bytes(4, "little")).digest()
    return int.from_bytes(digest[:4], "little") % _LAST_VERSION + 1


def _record(made: Bundle, pictures: int, lost: float) -> None:
    """Write the loss into the manifest, to compare later galleries with."""
    provenance = {**made.manifest.provenance, **fitting_record(pictures, lost)}
    write_manifest(made.folder, replace(made.manifest, provenance=provenance))


def _verify(made: Bundle, model: ModelFolder, form: TokenForm, stored: StoredTokens) -> float:
    """Compare the new graph with the paper's form in torch, on the restored tokens."""
    rng = np.random.default_rng(0)
    query = Composition(
        vector=np.zeros(made.manifest.vector_size, dtype=np.float32),
        input_ids=rng.integers(5, model.model.sizes.vocabulary, _CHECKED_LENGTH),
        fusion_states=rng.standard_normal((_CHECKED_LENGTH, made.manifest.fusion_dims), dtype=np.float32),
    )
    restored = form.restore(stored)
    everything = StoredTokens(restored, np.ones(restored.shape[:2], np.float32))
    with torch.inference_mode():
        expected = torch_scores(model, query, everything).numpy()
    found = Reranker.open(made, Compute("cpu")).score(query, stored)
    difference = float(np.abs(expected - found).max())
    if not difference <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise VerificationError(
            f"The compressed re-ranker's scores differ from torch's by {difference:.2e}, allowed {_TOLERANCE:.0e} of "
            "the largest score. This is a bug: please report it."
        )
    return difference
