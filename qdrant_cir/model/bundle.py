"""The model folder: its manifest, its graphs, and the checks of its files."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path, PurePosixPath

from qdrant_cir.errors import BundleError
from qdrant_cir.model.contracts import (
    GRAPH_CONTRACTS,
    REQUIRED_GRAPHS,
    CompressionSizes,
    GraphContract,
    GraphName,
    ModelSizes,
    TensorSpec,
    TokenCodec,
    contract_tensors,
)
from qdrant_cir.model.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    PREPROCESSING_VERSION,
    Compression,
    GraphEntry,
    GraphVariant,
    Manifest,
    PreprocessingSpec,
    TokenizerSpec,
    parse_manifest,
)
from qdrant_cir.types import JsonObject, Precision

__all__ = [
    "FORMAT_VERSION",
    "GRAPH_CONTRACTS",
    "MANIFEST_FILE",
    "PREPROCESSING_VERSION",
    "REQUIRED_GRAPHS",
    "Bundle",
    "Compression",
    "CompressionSizes",
    "GraphContract",
    "GraphEntry",
    "GraphName",
    "GraphVariant",
    "Manifest",
    "ModelSizes",
    "PreprocessingSpec",
    "TensorSpec",
    "TokenCodec",
    "TokenizerSpec",
    "contract_tensors",
    "default_bundle_path",
    "graph_entry",
    "load_bundle",
    "parse_manifest",
    "sha256_of",
    "sorted_digests",
    "write_manifest",
]

_MANIFEST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model folder whose files were checked.

    Attributes:
        folder: its path.
        manifest: the content of its ``cir_config.json``.
        fingerprint: 64 hex digits, a hash of everything that changes what is stored or scored. Bundles with the same
            fingerprint compute the same. Name, licence and provenance are not part of it.
    """

    folder: Path
    manifest: Manifest
    fingerprint: str

    def graph_path(self, name: GraphName, precision: Precision = "float32") -> Path:
        """Locate the ONNX file of a graph.

        Raises:
            BundleError: the bundle does not have the graph in that precision.
        """
        entry = self.manifest.graphs[name]
        if precision == "float32":
            return self.folder / entry.file
        if precision not in entry.variants:
            raise BundleError(
                f"The bundle {self.folder} has no {precision} {name}; it has "
                f"{', '.join(('float32', *entry.variants))}. Add one with "
                f"`python -m onnx_export add-precision {self.folder} --precision {precision} --graph {name}`."
            )
        return self.folder / entry.variants[precision].file

    @property
    def vectors_fingerprint(self) -> str:
        """The fingerprint that a gallery stores; bundles with the same one make the same vectors.

        It ignores compression. Each image stores :attr:`fingerprint`, which also covers the form of its tokens.
        """
        packed = self.manifest.compression
        if packed is None:
            return self.fingerprint
        return _fingerprint(replace(self.manifest, compression=None), reranker=packed.exact_reranker)

    @property
    def has_candidate_encoder(self) -> bool:
        """Whether stage two reads candidates through its own image encoder."""
        return "candidate_encoder" in self.manifest.graphs

    @property
    def tokenizer_path(self) -> Path:
        """The path of the tokenizer's JSON."""
        return self.folder / self.manifest.tokenizer.file


def default_bundle_path() -> Path:
    """Locate the bundled model."""
    return Path(__file__).parents[1] / "bundles" / "default"


def sha256_of(path: Path) -> str:
    """Hash a file without reading it whole; 64 lower-case hex digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sorted_digests(entry: GraphEntry) -> str:
    """Return the digests of a graph's files, sorted and joined by spaces."""
    return " ".join(sorted(entry.files.values()))


def graph_entry(folder: Path, name: GraphName, files: Sequence[str], sizes: ModelSizes) -> GraphEntry:
    """Describe a graph that was just written into a bundle folder.

    Args:
        folder: the bundle folder.
        name: which graph.
        files: paths inside the folder; the ONNX file first, its external weights after it.
        sizes: of the model.

    Returns:
        The manifest's entry, with checksums and the contract's tensors.
    """
    tensors = contract_tensors(name, sizes)
    hashes = {file: sha256_of(folder / file) for file in files}
    return GraphEntry(file=files[0], files=hashes, inputs=tensors.inputs, outputs=tensors.outputs)


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Write ``cir_config.json`` into a bundle folder and return its path."""
    path = folder / MANIFEST_FILE
    partial = path.with_suffix(".partial")
    partial.write_text(manifest.to_json(), encoding="utf-8")
    partial.replace(path)
    return path


def load_bundle(path: str | PathLike[str] | None = None) -> Bundle:
    """Read a model folder and check every file in it.

    Args:
        path: the folder that holds ``cir_config.json``; None for the bundled model.

    Raises:
        BundleError: the folder, its manifest or a file is missing; a path leaves the folder or is a symbolic
            link; a checksum differs; a graph declares other tensors than the runtime's contract, or reads
            weights that the manifest does not list.
    """
    folder = default_bundle_path() if path is None else Path(path)
    manifest_path = folder / MANIFEST_FILE
    if not folder.is_dir():
        raise BundleError(f"There is no bundle folder {folder}. Give the folder that holds {MANIFEST_FILE}.")
    if not manifest_path.is_file():
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST_FILE}. Export one or give another folder.")
    if manifest_path.stat().st_size > _MANIFEST_BYTES:
        raise BundleError(f"{manifest_path} is larger than {_MANIFEST_BYTES} bytes; a manifest is a few kilobytes.")
    try:
        manifest = parse_manifest(manifest_path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{manifest_path} cannot be read: {error}.") from error
    for name, entry in manifest.graphs.items():
        _check_tensors(name, entry, manifest.sizes)
        graphs: list[GraphEntry | GraphVariant] = [entry, *entry.variants.values()]
        for graph in graphs:
            for file, sha256 in graph.files.items():
                _check_file(folder, file, sha256)
            _check_weights_listed(folder, graph)
    _check_file(folder, manifest.tokenizer.file, manifest.tokenizer.sha256)
    if manifest.compression is not None:
        _check_file(folder, manifest.compression.file, manifest.compression.sha256)
    return Bundle(folder=folder, manifest=manifest, fingerprint=_fingerprint(manifest))


def _check_tensors(name: GraphName, entry: GraphEntry, sizes: ModelSizes) -> None:
    expected = contract_tensors(name, sizes)
    for side, wanted, declared in (
        ("inputs", expected.inputs, entry.inputs),
        ("outputs", expected.outputs, entry.outputs),
    ):
        if wanted != declared:
            raise BundleError(
                f"The {side} of the graph {name} do not meet the runtime's contract. "
                f"Expected {_tensor_text(wanted)}; the manifest declares {_tensor_text(declared)}. "
                "Export the bundle with this version of qdrant-cir."
            )


def _tensor_text(tensors: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{t.name} {t.dtype} [{','.join(map(str, t.shape))}]" for t in tensors) or "none"


def _check_file(folder: Path, file: str, sha256: str) -> None:
    path = PurePosixPath(file)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in file or ":" in file:
        raise BundleError(f"The manifest names {file!r}, which is not a plain path inside the bundle folder. Refused.")
    place = folder
    for part in path.parts:
        place = place / part
        if place.is_symlink():
            raise BundleError(
                f"{place} is a symbolic link; a bundle's files must lie inside it. Copy it with `cp -rL`."
            )
    if not place.is_file():
        raise BundleError(f"The bundle {folder} lacks the file {file}. Copy the bundle again, whole.")
    try:
        found = sha256_of(place)
    except OSError as error:
        raise BundleError(f"{place} cannot be read: {error}.") from error
    if found != sha256:
        raise BundleError(
            f"{place} is not the file that the manifest describes: expected sha256 {sha256}, found {found}. "
            "It was damaged or changed; copy or export the bundle again."
        )


_LOCATION = b"\x0a\x08location\x12"
"""How protobuf writes the key ``location`` of external data; its value's length and bytes follow."""


def _check_weights_listed(folder: Path, entry: GraphEntry | GraphVariant) -> None:
    """Refuse a graph that reads weights whose checksum the manifest does not hold."""
    path = folder / entry.file
    if path.stat().st_size == 0:
        raise BundleError(f"{path} is empty. Export the bundle again.")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as graph:
        place = graph.find(_LOCATION)
        while place >= 0:
            start = place + len(_LOCATION)
            location = graph[start + 1 : start + 1 + graph[start]].decode("utf-8", "replace")
            listed = (PurePosixPath(entry.file).parent / location).as_posix()
            if listed not in entry.files:
                raise BundleError(
                    f"{path} reads weights from {location!r}, but the manifest has no checksum of {listed}. "
                    "Export the bundle again."
                )
            place = graph.find(_LOCATION, start)


def _fingerprint(manifest: Manifest, *, reranker: str | None = None) -> str:
    """Hash what changes what is stored or scored; ``reranker`` replaces the digests of that graph."""
    said = manifest.to_object()
    digests: JsonObject = {name: sorted_digests(entry) for name, entry in manifest.graphs.items()}
    said["graphs"] = digests if reranker is None else {**digests, "reranker": reranker}
    said["tokenizer"] = {
        "sha256": manifest.tokenizer.sha256,
        "max_length": manifest.tokenizer.max_length,
        "first_token_id": manifest.tokenizer.first_token_id,
    }
    for key in ("name", "licence", "provenance"):
        del said[key]
    canonical = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
