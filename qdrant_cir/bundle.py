"""The model folder: what its manifest says, what its graphs must look like, and whether its files are what they were.

The runtime owns the graph contracts (:data:`GRAPH_CONTRACTS`); the exporter obeys them. The manifest's format exists
here alone, for reading and for writing.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Literal, TypeAlias, TypeVar, cast, get_args

from qdrant_cir.errors import BundleError
from qdrant_cir.types import JsonObject, JsonValue

__all__ = [
    "FORMAT_VERSION",
    "GRAPH_CONTRACTS",
    "MANIFEST_FILE",
    "Bundle",
    "GraphContract",
    "GraphEntry",
    "GraphName",
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
    "write_manifest",
]

MANIFEST_FILE = "cir_config.json"
FORMAT_VERSION = 1
_MANIFEST_BYTES = 4 * 1024 * 1024

GraphName: TypeAlias = Literal["image_encoder", "composer", "reranker"]
TokenCodec: TypeAlias = Literal["int8", "float16", "float32"]

_Json = TypeVar("_Json", bound="str | int | float | list[JsonValue] | JsonObject")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a graph.

    Attributes:
        name: its name in the graph.
        dtype: numpy's name of its element type.
        shape: a number is a fixed axis, a word a dynamic one.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class GraphContract:
    """What a graph takes and gives. In a contract, upper-case axes and the dtype ``codec`` stand for the model's sizes."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


_IDS = TensorSpec("input_ids", "int64", ("batch", "length"))
_MASK = TensorSpec("attention_mask", "int64", ("batch", "length"))

GRAPH_CONTRACTS: Mapping[GraphName, GraphContract] = MappingProxyType(
    {
        "image_encoder": GraphContract(
            inputs=(TensorSpec("pixel_values", "float32", ("batch", 3, "S", "S")),),
            outputs=(
                TensorSpec("tokens", "float32", ("batch", "N", "C")),
                TensorSpec("vectors", "float32", ("batch", "D")),
            ),
        ),
        "composer": GraphContract(
            inputs=(_IDS, _MASK, TensorSpec("reference_tokens", "float32", ("batch", "N", "C"))),
            outputs=(
                TensorSpec("query_vectors", "float32", ("batch", "D")),
                TensorSpec("fusion_states", "float32", ("batch", "length", "H")),
            ),
        ),
        "reranker": GraphContract(
            inputs=(
                TensorSpec("input_ids", "int64", (1, "length")),
                TensorSpec("fusion_states", "float32", (1, "length", "H")),
                TensorSpec("candidate_tokens", "codec", ("candidates", "N", "C")),
                TensorSpec("candidate_scales", "float32", ("candidates", "N")),
            ),
            outputs=(TensorSpec("scores", "float32", ("candidates",)),),
        ),
    }
)
"""Names, element types and axes of the three graphs. Lower-case axes are dynamic."""


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """The numbers that all three graphs share.

    Attributes:
        image_size: S, side of the square input in pixels.
        token_rows: N, tokens per image, the class token included.
        token_dims: C, dimensions of one image token.
        vector_size: D, dimensions of what Qdrant searches.
        fusion_dims: H, dimensions of one fusion state.
        token_codec: the form in which candidate tokens are stored and read by the re-ranker.
    """

    image_size: int
    token_rows: int
    token_dims: int
    vector_size: int
    fusion_dims: int
    token_codec: TokenCodec


@dataclass(frozen=True, slots=True)
class PreprocessingSpec:
    """How a picture becomes pixels.

    Attributes:
        size: side of the square in pixels.
        pad_ratio: pictures at least this elongated are padded with black towards it.
        mean: per RGB channel, of values in 0..1.
        std: likewise.
    """

    size: int
    pad_ratio: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class TokenizerSpec:
    """How a text becomes ids.

    Attributes:
        file: path of the tokenizer's JSON inside the bundle.
        sha256: of that file.
        max_length: ids per text at most, the special ones included.
        first_token_id: replaces the first id ([CLS] becomes [ENC]; paper, section 3.2).
    """

    file: str
    sha256: str
    max_length: int
    first_token_id: int


@dataclass(frozen=True, slots=True)
class GraphEntry:
    """One graph of a bundle.

    Attributes:
        file: path of the ONNX file inside the bundle, with forward slashes.
        files: every file of the graph (itself and its external weights) with its sha256.
        inputs: as declared, all sizes filled in.
        outputs: likewise.
    """

    file: str
    files: Mapping[str, str]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``cir_config.json`` holds; see :class:`ModelSizes` for the sizes."""

    name: str
    licence: str
    graphs: Mapping[GraphName, GraphEntry]
    preprocessing: PreprocessingSpec
    tokenizer: TokenizerSpec
    vector_size: int
    token_rows: int
    token_dims: int
    fusion_dims: int
    token_codec: TokenCodec
    provenance: JsonObject

    @property
    def sizes(self) -> ModelSizes:
        """The sizes that the graph contracts are filled in with."""
        return ModelSizes(
            image_size=self.preprocessing.size,
            token_rows=self.token_rows,
            token_dims=self.token_dims,
            vector_size=self.vector_size,
            fusion_dims=self.fusion_dims,
            token_codec=self.token_codec,
        )

    def to_json(self) -> str:
        """Write the manifest as JSON; :func:`parse_manifest` gives an equal manifest back."""
        return json.dumps(_manifest_object(self), indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model folder whose files were checked.

    Attributes:
        folder: where it lies.
        manifest: what it says.
        fingerprint: 64 hex digits over everything that changes what is stored or scored: equal fingerprints may share
            a collection. Name, licence and provenance are not part of it.
    """

    folder: Path
    manifest: Manifest
    fingerprint: str

    def graph_path(self, name: GraphName) -> Path:
        """Locate the ONNX file of a graph."""
        return self.folder / self.manifest.graphs[name].file

    @property
    def tokenizer_path(self) -> Path:
        """Where the tokenizer's JSON lies."""
        return self.folder / self.manifest.tokenizer.file


def default_bundle_path() -> Path:
    """Locate the bundled model."""
    return Path(__file__).parent / "bundles" / "default"


def contract_tensors(name: GraphName, sizes: ModelSizes) -> GraphContract:
    """Fill a graph's contract in with a model's sizes; the words left in shapes are dynamic axes."""
    axes = {
        "S": sizes.image_size,
        "N": sizes.token_rows,
        "C": sizes.token_dims,
        "D": sizes.vector_size,
        "H": sizes.fusion_dims,
    }

    def fill(tensors: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(
                tensor.name,
                sizes.token_codec if tensor.dtype == "codec" else tensor.dtype,
                tuple(axes.get(axis, axis) if isinstance(axis, str) else axis for axis in tensor.shape),
            )
            for tensor in tensors
        )

    contract = GRAPH_CONTRACTS[name]
    return GraphContract(inputs=fill(contract.inputs), outputs=fill(contract.outputs))


def sha256_of(path: Path) -> str:
    """Hash a file without reading it whole; 64 lower-case hex digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    """Write ``cir_config.json`` into a bundle folder and give its path."""
    path = folder / MANIFEST_FILE
    partial = path.with_suffix(".partial")
    partial.write_text(manifest.to_json(), encoding="utf-8")
    partial.replace(path)
    return path


def load_bundle(path: Path | str) -> Bundle:
    """Read a model folder and check every file in it.

    Args:
        path: the folder that holds ``cir_config.json``.

    Raises:
        BundleError: the folder, its manifest or a file is missing; a path leaves the folder or is a symbolic link; a
            checksum differs; a graph declares other tensors than the runtime's contract or reads unlisted weights.
    """
    folder = Path(path)
    manifest_path = folder / MANIFEST_FILE
    if not folder.is_dir():
        raise BundleError(f"There is no bundle folder {folder}. Give the folder that holds {MANIFEST_FILE}.")
    if not manifest_path.is_file():
        raise BundleError(
            f"{folder} holds no {MANIFEST_FILE}, so it is no bundle. Export one or give another folder."
        )
    if manifest_path.stat().st_size > _MANIFEST_BYTES:
        raise BundleError(
            f"{manifest_path} is larger than {_MANIFEST_BYTES} bytes; a manifest is a few kilobytes."
        )
    try:
        manifest = parse_manifest(manifest_path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{manifest_path} cannot be read: {error}.") from error
    for name, entry in manifest.graphs.items():
        _check_tensors(name, entry, manifest.sizes)
        for file, sha256 in entry.files.items():
            _check_file(folder, file, sha256)
        _check_weights_listed(folder, entry)
    _check_file(folder, manifest.tokenizer.file, manifest.tokenizer.sha256)
    return Bundle(folder=folder, manifest=manifest, fingerprint=_fingerprint(manifest))


def parse_manifest(text: str) -> Manifest:
    """Read a manifest's JSON.

    Raises:
        BundleError: it is not JSON, of another format version, or lacks a key or has one of the wrong type.
    """
    try:
        root = json.loads(text)
    except ValueError as error:
        raise BundleError(f"{MANIFEST_FILE} is not JSON: {error}. Export the bundle again.") from error
    if not isinstance(root, dict):
        raise BundleError(f"{MANIFEST_FILE} must hold a JSON object, but holds {type(root).__name__}.")
    version = _field(root, "format_version", int, "")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"This bundle has format version {version}; this version of qdrant-cir reads {FORMAT_VERSION}. "
            "Export the bundle again, or install the version of qdrant-cir that made it."
        )
    graphs = _field(root, "graphs", dict, "")
    pixels = _field(root, "preprocessing", dict, "")
    tokenizer = _field(root, "tokenizer", dict, "")
    codec = _field(root, "token_codec", str, "")
    if codec not in get_args(TokenCodec):
        raise BundleError(f"token_codec is {codec!r}; expected one of {', '.join(get_args(TokenCodec))}.")
    names: tuple[GraphName, ...] = get_args(GraphName)
    return Manifest(
        name=_field(root, "name", str, ""),
        licence=_field(root, "licence", str, ""),
        graphs={
            name: _parse_graph(_field(graphs, name, dict, "graphs."), f"graphs.{name}.") for name in names
        },
        preprocessing=PreprocessingSpec(
            size=_size(pixels, "size", "preprocessing."),
            pad_ratio=_number(pixels.get("pad_ratio"), "preprocessing.pad_ratio"),
            mean=_triple(pixels, "mean"),
            std=_triple(pixels, "std"),
        ),
        tokenizer=TokenizerSpec(
            file=_field(tokenizer, "file", str, "tokenizer."),
            sha256=_field(tokenizer, "sha256", str, "tokenizer."),
            max_length=_size(tokenizer, "max_length", "tokenizer."),
            first_token_id=_field(tokenizer, "first_token_id", int, "tokenizer."),
        ),
        vector_size=_size(root, "vector_size", ""),
        token_rows=_size(root, "token_rows", ""),
        token_dims=_size(root, "token_dims", ""),
        fusion_dims=_size(root, "fusion_dims", ""),
        token_codec=cast("TokenCodec", codec),
        provenance=_field(root, "provenance", dict, ""),
    )


def _field(source: JsonObject, key: str, kind: type[_Json], where: str) -> _Json:
    if key not in source:
        raise BundleError(f"{MANIFEST_FILE} lacks {where}{key}. Export the bundle again.")
    value = source[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BundleError(
            f"{MANIFEST_FILE}: {where}{key} must be {kind.__name__}, but is {type(value).__name__} ({value!r:.80})."
        )
    return value


def _size(source: JsonObject, key: str, where: str) -> int:
    value = _field(source, key, int, where)
    if value < 1:
        raise BundleError(f"{MANIFEST_FILE}: {where}{key} must be at least 1, but is {value}.")
    return value


def _number(value: JsonValue, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise BundleError(f"{MANIFEST_FILE}: {where} must be a number above 0, but is {value!r:.80}.")
    return float(value)


def _triple(pixels: JsonObject, key: str) -> tuple[float, float, float]:
    values = _field(pixels, key, list, "preprocessing.")
    if len(values) != 3:
        raise BundleError(
            f"{MANIFEST_FILE}: preprocessing.{key} must hold 3 numbers (RGB), but holds {len(values)}."
        )
    red, green, blue = (_number(value, f"preprocessing.{key}") for value in values)
    return (red, green, blue)


def _parse_graph(source: JsonObject, where: str) -> GraphEntry:
    file = _field(source, "file", str, where)
    hashes = _field(source, "files", dict, where)
    files = {path: _field(hashes, path, str, f"{where}files.") for path in hashes}
    if file not in files:
        raise BundleError(
            f"{MANIFEST_FILE}: {where}files has no checksum of {file}. Export the bundle again."
        )
    return GraphEntry(
        file=file,
        files=files,
        inputs=_parse_tensors(_field(source, "inputs", list, where), f"{where}inputs"),
        outputs=_parse_tensors(_field(source, "outputs", list, where), f"{where}outputs"),
    )


def _parse_tensors(source: list[JsonValue], where: str) -> tuple[TensorSpec, ...]:
    tensors = []
    for place, tensor in enumerate(source):
        if not isinstance(tensor, dict):
            raise BundleError(f"{MANIFEST_FILE}: {where}[{place}] must be an object, but is {tensor!r:.80}.")
        prefix = f"{where}[{place}]."
        shape = _field(tensor, "shape", list, prefix)
        axes = tuple(axis for axis in shape if isinstance(axis, int | str) and not isinstance(axis, bool))
        if len(axes) != len(shape):
            raise BundleError(
                f"{MANIFEST_FILE}: {prefix}shape must hold numbers and words, but is {shape!r:.80}."
            )
        tensors.append(
            TensorSpec(_field(tensor, "name", str, prefix), _field(tensor, "dtype", str, prefix), axes)
        )
    return tuple(tensors)


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
        raise BundleError(
            f"The manifest names {file!r}, which is not a plain path inside the bundle folder. Refused."
        )
    place = folder
    for part in path.parts:
        place = place / part
        if place.is_symlink():
            raise BundleError(
                f"{place} is a symbolic link; a bundle's files must lie inside it. Copy the bundle with `cp -rL`."
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
"""How protobuf writes the key ``location`` of an ONNX tensor's external data; its value's length and bytes follow."""


def _check_weights_listed(folder: Path, entry: GraphEntry) -> None:
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
                    f"{path} reads weights from {location!r}, but the manifest holds no checksum of {listed!r}. "
                    "Export the bundle again."
                )
            place = graph.find(_LOCATION, start)


def _manifest_object(manifest: Manifest) -> JsonObject:
    def tensors(specs: Sequence[TensorSpec]) -> list[JsonValue]:
        return [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)} for spec in specs]

    pixels, tokenizer = manifest.preprocessing, manifest.tokenizer
    return {
        "format_version": FORMAT_VERSION,
        "name": manifest.name,
        "licence": manifest.licence,
        "graphs": {
            name: {
                "file": entry.file,
                "files": dict(entry.files),
                "inputs": tensors(entry.inputs),
                "outputs": tensors(entry.outputs),
            }
            for name, entry in manifest.graphs.items()
        },
        "preprocessing": {
            "size": pixels.size,
            "pad_ratio": pixels.pad_ratio,
            "mean": list(pixels.mean),
            "std": list(pixels.std),
        },
        "tokenizer": {
            "file": tokenizer.file,
            "sha256": tokenizer.sha256,
            "max_length": tokenizer.max_length,
            "first_token_id": tokenizer.first_token_id,
        },
        "vector_size": manifest.vector_size,
        "token_rows": manifest.token_rows,
        "token_dims": manifest.token_dims,
        "fusion_dims": manifest.fusion_dims,
        "token_codec": manifest.token_codec,
        "provenance": manifest.provenance,
    }


def _fingerprint(manifest: Manifest) -> str:
    said = _manifest_object(manifest)
    said["graphs"] = {name: sorted(entry.files.values()) for name, entry in manifest.graphs.items()}
    said["tokenizer"] = {
        "sha256": manifest.tokenizer.sha256,
        "max_length": manifest.tokenizer.max_length,
        "first_token_id": manifest.tokenizer.first_token_id,
    }
    for key in ("name", "licence", "provenance"):
        del said[key]
    canonical = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
