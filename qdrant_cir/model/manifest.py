"""The manifest of a bundle: its format, read and written only here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypeVar, cast, get_args

from qdrant_cir.errors import BundleError
from qdrant_cir.model.contracts import (
    REQUIRED_GRAPHS,
    CompressionSizes,
    GraphName,
    ModelSizes,
    TensorSpec,
    TokenCodec,
)
from qdrant_cir.types import JsonObject, JsonValue, Precision

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST_FILE",
    "ORIGINAL_PREPROCESSING",
    "PREPROCESSING_VERSION",
    "SIZES_KEY",
    "Compression",
    "GraphEntry",
    "GraphVariant",
    "Manifest",
    "PreprocessingSpec",
    "TokenizerSpec",
    "parse_manifest",
]

MANIFEST_FILE = "cir_config.json"
FORMAT_VERSION = 1
PREPROCESSING_VERSION = 2
"""The version of newly exported bundles; see :class:`PreprocessingSpec`."""
SIZES_KEY = "sizes"
"""Key of the torch model's sizes in the provenance; heads and depths cannot be read from tensors."""
ORIGINAL_PREPROCESSING = 0
_LAST_VERSION = 2**16 - 1

_LARGEST_PICTURE = 4_096
_LARGEST_AXIS = 65_536
"""Also the longest vector that Qdrant stores."""
_MOST_TOKEN_NUMBERS = 2**24
"""Numbers of one image's tokens, rows times dimensions: 64 MiB as float32. BLIP's have 443,136."""
_LONGEST_TEXT = 16_384
_LAST_TOKEN_ID = 2**31 - 1
_LARGEST_PAD_RATIO = 1_000.0
_SMALLEST_LEVEL, _LARGEST_LEVEL = 1e-6, 1e6
_MOST_FILES = 4_096
_DEEPEST = 64
"""Objects and lists within each other, as in payloads."""

_Json = TypeVar("_Json", bound="str | int | float | list[JsonValue] | JsonObject")


@dataclass(frozen=True, slots=True)
class PreprocessingSpec:
    """How a picture becomes pixels.

    Attributes:
        size: side of the square in pixels.
        pad_ratio: pictures at least this elongated are padded with black towards it.
        mean: per RGB channel, of values in 0..1.
        std: likewise.
        version: how a file's values become RGB. In version 1 they are taken as sRGB, and the whole picture is decoded.
            Version 2 converts embedded colour profiles to sRGB, scales floating-point and 12-bit values by the range
            they declare, and decodes large pictures at a part of their size. Version 0 is the research code's, for
            evaluation of released weights: no orientation, no profile, converted to RGB after all else
            (docs/adr/0003-preprocessing-limits.md).
    """

    size: int
    pad_ratio: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    version: int = 1


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
class GraphVariant:
    """Another form of a graph: in another precision, or with weights.

    Attributes:
        file: path of the ONNX file inside the bundle, with forward slashes.
        files: every file of the variant with its sha256.
    """

    file: str
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GraphEntry:
    """One graph of a bundle.

    Attributes:
        file: path of the ONNX file inside the bundle, with forward slashes.
        files: every file of the graph (itself and its external weights) with its sha256.
        inputs: as declared, all sizes filled in.
        outputs: likewise.
        variants: the graph in other precisions; they change neither what is stored nor the fingerprint.
        weighted: of a re-ranker that reads all tokens, the graph with a weight per token, for explanations; None where
            the bundle lacks it. It shares the exact graph's weights and is no part of the fingerprint either.
    """

    file: str
    files: Mapping[str, str]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    variants: Mapping[Precision, GraphVariant] = field(default_factory=dict)
    weighted: GraphVariant | None = None


@dataclass(frozen=True, slots=True)
class Compression:
    """How candidate tokens are made smaller before they are stored (``python -m onnx_export fit-codec``).

    Attributes:
        rows: M, as in :class:`CompressionSizes`.
        dims: R, likewise.
        version: likewise.
        file: path of the projection inside the bundle: an npz of ``mean`` [C], ``down`` [C, R] and ``up`` [R, C].
        sha256: of that file.
        exact_reranker: digests of the re-ranker's files in the bundle that it was fitted for, sorted and
            joined by spaces. Both bundles may share a collection because their vectors are the same.
    """

    rows: int
    dims: int
    version: int
    file: str
    sha256: str
    exact_reranker: str


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
    compression: Compression | None = None

    @property
    def sizes(self) -> ModelSizes:
        """The sizes that the graph contracts are filled in with."""
        packed = self.compression
        return ModelSizes(
            image_size=self.preprocessing.size,
            token_rows=self.token_rows,
            token_dims=self.token_dims,
            vector_size=self.vector_size,
            fusion_dims=self.fusion_dims,
            token_codec=self.token_codec,
            compression=None if packed is None else CompressionSizes(packed.rows, packed.dims, packed.version),
        )

    def to_object(self) -> JsonObject:
        """Return the manifest as the JSON object of the file."""

        def tensors(specs: Sequence[TensorSpec]) -> list[JsonValue]:
            return [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)} for spec in specs]

        pixels, tokenizer = self.preprocessing, self.tokenizer
        return {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "licence": self.licence,
            "graphs": {
                name: {
                    "file": entry.file,
                    "files": dict(entry.files),
                    "inputs": tensors(entry.inputs),
                    "outputs": tensors(entry.outputs),
                    **({"variants": _variants_object(entry.variants)} if entry.variants else {}),
                    **({} if entry.weighted is None else {"weighted": _files_object(entry.weighted)}),
                }
                for name, entry in self.graphs.items()
            },
            "preprocessing": {
                "size": pixels.size,
                "pad_ratio": pixels.pad_ratio,
                "mean": list(pixels.mean),
                "std": list(pixels.std),
                # not written for version 1: older manifests have no such key and keep their fingerprint
                **({} if pixels.version == 1 else {"version": pixels.version}),
            },
            "tokenizer": {
                "file": tokenizer.file,
                "sha256": tokenizer.sha256,
                "max_length": tokenizer.max_length,
                "first_token_id": tokenizer.first_token_id,
            },
            "vector_size": self.vector_size,
            "token_rows": self.token_rows,
            "token_dims": self.token_dims,
            "fusion_dims": self.fusion_dims,
            "token_codec": self.token_codec,
            **({} if self.compression is None else {"compression": asdict(self.compression)}),
            "provenance": self.provenance,
        }

    def to_json(self) -> str:
        """Return the manifest as JSON; :func:`parse_manifest` reads it back."""
        return json.dumps(self.to_object(), indent=2, ensure_ascii=False) + "\n"


def _variants_object(variants: Mapping[Precision, GraphVariant]) -> JsonObject:
    return {precision: _files_object(variant) for precision, variant in variants.items()}


def _files_object(graph: GraphVariant) -> JsonObject:
    return {"file": graph.file, "files": dict(graph.files)}


def parse_manifest(text: str) -> Manifest:
    """Read a manifest's JSON.

    Raises:
        BundleError: it is not JSON, has another format version, a key is missing or has the wrong type, or a number is
            one that no model has.
    """
    try:
        root = json.loads(text)
    # nested by the thousand, it is a RecursionError
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{MANIFEST_FILE} is not JSON: {error}. Export the bundle again.") from error
    _check_json(root)
    if not isinstance(root, dict):
        raise BundleError(f"{MANIFEST_FILE} must hold a JSON object, but holds {type(root).__name__}.")
    version = _field(root, "format_version", int, "")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"This bundle has format version {version!r:.80}; this version of qdrant-cir reads {FORMAT_VERSION}. "
            "Export the bundle again, or install the version of qdrant-cir that made it."
        )
    graphs = _field(root, "graphs", dict, "")
    pixels = _field(root, "preprocessing", dict, "")
    tokenizer = _field(root, "tokenizer", dict, "")
    codec = _field(root, "token_codec", str, "")
    if codec not in get_args(TokenCodec):
        raise BundleError(f"token_codec is {codec!r}; expected one of {', '.join(get_args(TokenCodec))}.")
    token_rows, token_dims = _size(root, "token_rows", ""), _size(root, "token_dims", "")
    if token_rows * token_dims > _MOST_TOKEN_NUMBERS:
        raise BundleError(
            f"{MANIFEST_FILE}: token_rows times token_dims must be at most {_MOST_TOKEN_NUMBERS}, but are "
            f"{token_rows} times {token_dims}."
        )
    names = [name for name in get_args(GraphName) if name in REQUIRED_GRAPHS or name in graphs]
    return Manifest(
        name=_field(root, "name", str, ""),
        licence=_field(root, "licence", str, ""),
        graphs={name: _parse_graph(_field(graphs, name, dict, "graphs."), f"graphs.{name}.") for name in names},
        preprocessing=PreprocessingSpec(
            size=_size(pixels, "size", "preprocessing.", most=_LARGEST_PICTURE),
            pad_ratio=_number(pixels.get("pad_ratio"), "preprocessing.pad_ratio", 1.0, _LARGEST_PAD_RATIO),
            mean=_triple(pixels, "mean"),
            std=_triple(pixels, "std"),
            version=_preprocessing_version(pixels),
        ),
        tokenizer=TokenizerSpec(
            file=_field(tokenizer, "file", str, "tokenizer."),
            sha256=_field(tokenizer, "sha256", str, "tokenizer."),
            max_length=_size(tokenizer, "max_length", "tokenizer.", most=_LONGEST_TEXT),
            first_token_id=_size(tokenizer, "first_token_id", "tokenizer.", least=0, most=_LAST_TOKEN_ID),
        ),
        vector_size=_size(root, "vector_size", ""),
        token_rows=token_rows,
        token_dims=token_dims,
        fusion_dims=_size(root, "fusion_dims", ""),
        token_codec=cast("TokenCodec", codec),
        provenance=_field(root, "provenance", dict, ""),
        compression=_parse_compression(_field(root, "compression", dict, "")) if "compression" in root else None,
    )


def _parse_compression(source: JsonObject) -> Compression:
    where = "compression."
    version = _size(source, "version", where, most=_LAST_VERSION)
    return Compression(
        rows=_size(source, "rows", where),
        dims=_size(source, "dims", where),
        version=version,
        file=_field(source, "file", str, where),
        sha256=_field(source, "sha256", str, where),
        exact_reranker=_field(source, "exact_reranker", str, where),
    )


def _field(source: JsonObject, key: str, kind: type[_Json], where: str) -> _Json:
    if key not in source:
        raise BundleError(f"{MANIFEST_FILE} lacks {where}{key}. Export the bundle again.")
    value = source[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        found = type(value).__name__
        raise BundleError(f"{MANIFEST_FILE}: {where}{key} must be {kind.__name__}, but is {found} ({value!r:.80}).")
    return value


def _size(source: JsonObject, key: str, where: str, *, least: int = 1, most: int = _LARGEST_AXIS) -> int:
    value = _field(source, key, int, where)
    if value < least:
        raise BundleError(f"{MANIFEST_FILE}: {where}{key} must be at least {least}, but is {value!r:.80}.")
    if value > most:
        raise BundleError(f"{MANIFEST_FILE}: {where}{key} must be at most {most}, but is {value!r:.80}.")
    return value


def _number(value: JsonValue, where: str, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise BundleError(
            f"{MANIFEST_FILE}: {where} must be a number above 0, from {least:g} to {most:g}, but is {value!r:.80}."
        )
    return float(value)


def _check_json(root: JsonValue) -> None:
    """Refuse what JSON can be read from and cannot be written to again, wherever it stands."""
    waiting: list[tuple[JsonValue, int]] = [(root, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _DEEPEST:
            raise BundleError(f"{MANIFEST_FILE} nests objects and lists more than {_DEEPEST} deep.")
        if isinstance(value, float) and not math.isfinite(value):
            raise BundleError(f"{MANIFEST_FILE} holds a number that is not finite ({value!r}).")
        if isinstance(value, str) and not _is_unicode(value):
            raise BundleError(f"{MANIFEST_FILE} holds {value!r:.80}, which has half of a surrogate pair.")
        inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
        waiting.extend((item, depth + 1) for item in inner)


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _preprocessing_version(pixels: JsonObject) -> int:
    version = _size(pixels, "version", "preprocessing.", least=0, most=_LAST_VERSION) if "version" in pixels else 1
    if version > PREPROCESSING_VERSION:
        raise BundleError(
            f"This bundle has preprocessing version {version!r:.80}; this version of qdrant-cir knows versions up to "
            f"{PREPROCESSING_VERSION}. Install the version of qdrant-cir that made it."
        )
    return version


def _triple(pixels: JsonObject, key: str) -> tuple[float, float, float]:
    values = _field(pixels, key, list, "preprocessing.")
    if len(values) != 3:
        raise BundleError(f"{MANIFEST_FILE}: preprocessing.{key} must hold 3 numbers (RGB), but holds {len(values)}.")
    red, green, blue = (_number(value, f"preprocessing.{key}", _SMALLEST_LEVEL, _LARGEST_LEVEL) for value in values)
    return (red, green, blue)


def _parse_graph(source: JsonObject, where: str) -> GraphEntry:
    graph = _parse_files(source, where)
    return GraphEntry(
        file=graph.file,
        files=graph.files,
        inputs=_parse_tensors(_field(source, "inputs", list, where), f"{where}inputs"),
        outputs=_parse_tensors(_field(source, "outputs", list, where), f"{where}outputs"),
        variants=_parse_variants(source, where),
        weighted=(
            _parse_files(_field(source, "weighted", dict, where), f"{where}weighted.") if "weighted" in source else None
        ),
    )


def _parse_files(source: JsonObject, where: str) -> GraphVariant:
    file = _field(source, "file", str, where)
    hashes = _field(source, "files", dict, where)
    if len(hashes) > _MOST_FILES:
        raise BundleError(f"{MANIFEST_FILE}: {where}files names {len(hashes)} files; expected at most {_MOST_FILES}.")
    files = {path: _field(hashes, path, str, f"{where}files.") for path in hashes}
    if file not in files:
        raise BundleError(f"{MANIFEST_FILE}: {where}files has no checksum of {file!r}. Export the bundle again.")
    return GraphVariant(file, files)


def _parse_variants(source: JsonObject, where: str) -> dict[Precision, GraphVariant]:
    if "variants" not in source:
        return {}
    where = f"{where}variants."
    variants = _field(source, "variants", dict, where.removesuffix("variants."))
    if unknown := set(variants) - set(get_args(Precision)):
        raise BundleError(
            f"{MANIFEST_FILE}: {where}{min(unknown)!r} is not a precision that this version of qdrant-cir knows "
            f"({', '.join(get_args(Precision))}). Install the version that made the bundle."
        )
    return {
        cast("Precision", name): _parse_files(_field(variants, name, dict, where), f"{where}{name}.")
        for name in variants
    }


def _parse_tensors(source: list[JsonValue], where: str) -> tuple[TensorSpec, ...]:
    tensors = []
    for place, tensor in enumerate(source):
        if not isinstance(tensor, dict):
            raise BundleError(f"{MANIFEST_FILE}: {where}[{place}] must be an object, but is {tensor!r:.80}.")
        prefix = f"{where}[{place}]."
        shape = _field(tensor, "shape", list, prefix)
        axes = tuple(axis for axis in shape if isinstance(axis, int | str) and not isinstance(axis, bool))
        if len(axes) != len(shape):
            raise BundleError(f"{MANIFEST_FILE}: {prefix}shape must hold numbers and words, but is {shape!r:.80}.")
        tensors.append(TensorSpec(_field(tensor, "name", str, prefix), _field(tensor, "dtype", str, prefix), axes))
    return tuple(tensors)
