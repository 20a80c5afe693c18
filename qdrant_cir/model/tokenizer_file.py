"""The tokenizer's file of a bundle, checked as data, before the ``tokenizers`` library reads it."""

from __future__ import annotations

import json
from pathlib import Path

from qdrant_cir.errors import BundleError
from qdrant_cir.model.expressions import why_endless
from qdrant_cir.model.manifest import TokenizerSpec
from qdrant_cir.types import JsonObject, JsonValue

__all__ = ["check_tokenizer", "read_tokenizer"]

_MOST_BYTES = 64 * 1024 * 1024
_DEEPEST = 64
_MOST_GROWTH = 256
"""Characters that normalisation may make of one."""


def read_tokenizer(path: Path) -> str:
    """Read a tokenizer's file.

    Raises:
        BundleError: it cannot be read, is no text or larger than any tokenizer.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise BundleError(f"{path} is larger than {_MOST_BYTES} bytes; a tokenizer is a few megabytes at most.")
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read: {error}. Export the bundle again.") from error


def check_tokenizer(source: str, path: Path, spec: TokenizerSpec) -> None:
    """Refuse a tokenizer that some text would break, or that does not fit the manifest.

    Args:
        source: its JSON.
        path: its file, for messages.
        spec: of the manifest.

    Raises:
        BundleError: it is no tokenizer, has no token for unknown words, has no token ``first_token_id``, or splits or
            changes texts in a way that may take for ever.
    """
    try:
        root = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be loaded as a tokenizer: {error}. Export the bundle again.") from error
    model = root.get("model") if isinstance(root, dict) else None
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(root, dict) or not isinstance(model, dict) or not isinstance(vocabulary, dict | list):
        raise BundleError(f"{path} cannot be loaded as a tokenizer: it holds no vocabulary. Export the bundle again.")
    ids = _token_ids(root, vocabulary)
    if spec.first_token_id not in ids:
        raise BundleError(
            f"tokenizer.first_token_id is {spec.first_token_id}, but {path} holds {len(ids)} tokens. "
            "Export the bundle again."
        )
    if not _knows_the_unknown(model, vocabulary):
        raise BundleError(f"{path} has no token for unknown words. Export the bundle again.")
    _check_parts(root, path)
    growth = _growth(root.get("normalizer"))
    if growth > _MOST_GROWTH:
        raise BundleError(
            f"{path} makes more than {_MOST_GROWTH} characters of one before it splits a text, which may take for ever "
            "or all memory. Export the bundle with another tokenizer."
        )


def _token_ids(root: JsonObject, vocabulary: JsonObject | list[JsonValue]) -> set[int]:
    numbers = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
    added = root.get("added_tokens")
    more = [token.get("id") for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    return {number for number in (*numbers, *more) if isinstance(number, int) and not isinstance(number, bool)}


def _knows_the_unknown(model: JsonObject, vocabulary: JsonObject | list[JsonValue]) -> bool:
    kind = model.get("type")
    if kind == "Unigram":
        unknown = model.get("unk_id")
        is_token = isinstance(unknown, int) and not isinstance(unknown, bool) and 0 <= unknown < len(vocabulary)
        return is_token or model.get("byte_fallback") is True
    token = model.get("unk_token")
    if kind == "BPE" and token is None:
        return True  # of bytes, all of which it knows
    return isinstance(token, str) and token in vocabulary


def _check_parts(root: JsonObject, path: Path) -> None:
    """Refuse expressions that may take for ever; the vocabulary is no part."""
    waiting: list[tuple[JsonValue, int]] = [
        (root.get(key), 1) for key in ("normalizer", "pre_tokenizer", "post_processor", "decoder")
    ]
    while waiting:
        value, depth = waiting.pop()
        if depth > _DEEPEST:
            raise BundleError(f"{path} cannot be loaded as a tokenizer: it nests its parts more than {_DEEPEST} deep.")
        if isinstance(value, dict):
            expression = value.get("Regex")
            reason = why_endless(expression) if isinstance(expression, str) else None
            if reason is not None:
                raise BundleError(
                    f"{path} splits texts by the regular expression {expression!r:.80}, which may take for ever on "
                    f"some of them: {reason}. Export the bundle with another tokenizer."
                )
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        waiting.extend((item, depth + 1) for item in inner)


def _growth(normalizer: JsonValue) -> int:
    """Return how many characters replacements may make of one, at most just above the limit."""
    growth = 1
    waiting = [normalizer]
    while waiting:
        value = waiting.pop()
        if not isinstance(value, dict):
            continue
        content = value.get("content")
        if isinstance(content, str):
            # an expression may match between two characters, too
            growth = min(growth * max(1, len(content) + isinstance(value.get("pattern"), dict)), _MOST_GROWTH + 1)
        inner = value.get("normalizers")
        waiting.extend(inner if isinstance(inner, list) else [])
    return growth
