"""The model folder: its manifest, its graphs, and the checks of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path, PurePosixPath

from qdrant_cir.arguments import checked_path
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
from qdrant_cir.model.graph_locations import external_locations
from qdrant_cir.model.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    ORIGINAL_PREPROCESSING,
    PREPROCESSING_VERSION,
    SIZES_KEY,
    Compression,
    GraphEntry,
    GraphVariant,
    Manifest,
    PreprocessingSpec,
    TokenizerSpec,
    parse_manifest,
)
from qdrant_cir.model.tokenizer_file import check_tokenizer, read_tokenizer
from qdrant_cir.types import JsonObject, Precision

__all__ = [
    "DEFAULT_BUNDLE",
    "FORMAT_VERSION",
    "GRAPH_CONTRACTS",
    "MANIFEST_FILE",
    "PACKAGED_BUNDLES",
    "ORIGINAL_PREPROCESSING",
    "PREPROCESSING_VERSION",
    "REQUIRED_GRAPHS",
    "SIZES_KEY",
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
    "packaged_bundle_path",
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
    def weighted_reranker_path(self) -> Path | None:
        """The ONNX file of the exact re-ranker with a weight per token; None where the bundle has none."""
        entry = self.manifest.graphs["reranker"]
        if self.manifest.compression is not None:
            return self.folder / entry.file
        return None if entry.weighted is None else self.folder / entry.weighted.file

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


PACKAGED_BUNDLES: Mapping[str, str] = {
    "photos": "photographs of clothes",
    "drawn": "the drawn products of the demonstration",
}
"""Names of the models in this package, and what each is for."""
DEFAULT_BUNDLE = "photos"


def packaged_bundle_path(name: str) -> Path:
    """Locate a model of this package by its name.

    Raises:
        BundleError: there is none of that name.
    """
    if name not in PACKAGED_BUNDLES:
        raise BundleError(f"There is no packaged bundle {name!r}; there are {', '.join(PACKAGED_BUNDLES)}.")
    return Path(__file__).parents[1] / "bundles" / name


def default_bundle_path() -> Path:
    """Locate the packaged model that new collections are made with where no other is named."""
    return packaged_bundle_path(DEFAULT_BUNDLE)


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
        path: the folder that holds ``cir_config.json``, or the name of a packaged model, ``photos`` or ``drawn``; a
            bare word that is both is the packaged one. None for the packaged model that is the default.

    Raises:
        InputError: it is no path.
        BundleError: the folder, its manifest or a file is missing; a path leaves the folder or is a symbolic link,
            other than one of a hub's cache to its own blobs; a checksum differs; a graph declares other tensors than
            the runtime's contract, or reads weights that the manifest does not list; the tokenizer knows no unknown
            words, lacks the manifest's first token or may take for ever.
    """
    if path is None:
        folder = default_bundle_path()
    else:
        folder = checked_path(path, name="The bundle")
        folder = packaged_bundle_path(fspath(path)) if fspath(path) in PACKAGED_BUNDLES else folder
    manifest = _read_manifest(folder)
    for name, entry in manifest.graphs.items():
        _check_tensors(name, entry, manifest.sizes)
        graphs: list[GraphEntry | GraphVariant] = [entry, *entry.variants.values()]
        if entry.weighted is not None:
            graphs.append(entry.weighted)
        # graphs that share their weights have them checked once
        for file, sha256 in dict.fromkeys(pair for graph in graphs for pair in graph.files.items()):
            _check_file(folder, file, sha256)
        for graph in graphs:
            _check_weights_listed(folder, graph)
    _check_file(folder, manifest.tokenizer.file, manifest.tokenizer.sha256)
    tokenizer = folder / manifest.tokenizer.file
    check_tokenizer(read_tokenizer(tokenizer), tokenizer, manifest.tokenizer)
    if manifest.compression is not None:
        _check_file(folder, manifest.compression.file, manifest.compression.sha256)
    return Bundle(folder=folder, manifest=manifest, fingerprint=_fingerprint(manifest))


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST_FILE
    try:
        if not folder.is_dir():
            raise BundleError(f"There is no bundle folder {folder}. Give the folder that holds {MANIFEST_FILE}.")
        if not path.is_file():
            raise BundleError(
                f"{folder} is not a bundle: it has no {MANIFEST_FILE}. Export one or give another folder."
            )
        with path.open("rb") as file:
            content = file.read(_MANIFEST_BYTES + 1)
        if len(content) > _MANIFEST_BYTES:
            raise BundleError(f"{path} is larger than {_MANIFEST_BYTES} bytes; a manifest is a few kilobytes.")
        return parse_manifest(content.decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read: {error}.") from error


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
    if not _is_plain(file):
        raise BundleError(f"The manifest names {file!r}, which is not a plain path inside the bundle folder. Refused.")
    place = folder / file
    try:
        steps = [folder.joinpath(*PurePosixPath(file).parts[:depth]) for depth in range(1, file.count("/") + 2)]
        linked = next((step for step in steps if step.is_symlink()), None)
        if linked is not None and not (linked == place and _is_link_of_hub(folder, place)):
            raise BundleError(
                f"{linked} is a symbolic link; a bundle's files must lie inside it. Copy it with `cp -rL`."
            )
        if not place.is_file():
            raise BundleError(f"The bundle {folder} lacks the file {file}. Copy the bundle again, whole.")
        found = sha256_of(place)
    except OSError as error:
        raise BundleError(f"{place} cannot be read: {error}.") from error
    if found != sha256:
        raise BundleError(
            f"{place} is not the file that the manifest describes: expected sha256 {sha256}, found {found}. "
            "It was damaged or changed; copy or export the bundle again."
        )


def _is_plain(file: str) -> bool:
    """Whether a path has one reading on every system: relative, with forward slashes, and no more of them than needed.

    A second spelling of a path, such as ``a//b``, would be hashed a second time.
    """
    path = PurePosixPath(file)
    return (
        bool(path.parts)
        and path.as_posix() == file
        and not path.is_absolute()
        and ".." not in path.parts
        and not any(character in '\\:*?"<>|' for character in file)
        and file.isprintable()
    )


def _is_link_of_hub(folder: Path, place: Path) -> bool:
    """Whether a link leads to the blobs of the repository that the folder is a snapshot of.

    A hub's cache holds ``blobs/HASH`` and ``snapshots/REVISION/FILE``, and the latter are links to the former.
    """
    try:
        target = place.resolve()
    except RuntimeError:  # links that lead to each other, before Python 3.13
        return False
    snapshots = next((parent for parent in folder.resolve().parents if parent.name == "snapshots"), None)
    return snapshots is not None and target.parent == snapshots.with_name("blobs")


def _check_weights_listed(folder: Path, entry: GraphEntry | GraphVariant) -> None:
    """Refuse a graph that reads weights whose checksum the manifest does not hold."""
    path = folder / entry.file
    if path.suffix != ".onnx":
        raise BundleError(f"The graph {path} is no .onnx file; other names are other formats. Refused.")
    for location in external_locations(path):
        listed = (PurePosixPath(entry.file).parent / location).as_posix()
        if not _is_plain(location) or listed not in entry.files:
            raise BundleError(
                f"{path} reads weights from {location!r}, but the manifest has no checksum of {listed}. "
                "Export the bundle again."
            )


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
