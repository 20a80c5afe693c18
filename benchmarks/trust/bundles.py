"""Damaged bundle folders: each loads or is refused with a named error, and nothing else.

``python -m benchmarks.trust.bundles [--count 2000] [--seed 0]``; the last line is JSON.
The exit code is 1 where an error was raw. Manifests, tokenizers and graphs are damaged as JSON and as bytes; their
checksums are made right again, so that what lies behind these is reached.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.random import Generator

from benchmarks.trust.damage import damaged
from qdrant_cir.errors import CirError
from qdrant_cir.model.bundle import MANIFEST_FILE, default_bundle_path, load_bundle, sha256_of
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.sessions import open_graph
from qdrant_cir.model.text_tokenizer import TextTokenizer

__all__ = ["count_outcomes", "main"]

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

_TEXTS = ("make it red", "", "a" * 3_000, " " * 3_000, "épaulettes 👗 в красном", "a1b2 " * 400)
_GRAPHS = ("image_encoder", "composer", "reranker")
_NUMBERS: tuple[Json, ...] = (0, -1, 1, True, 2**31, 2**63, 10**12, 10**400, 0.5, 1e308, -1e-308, float("nan"))
_WORDS: tuple[Json, ...] = ("", "\0", "\ud800", "../x", "/etc/passwd", "x" * 5_000, "[UNK]", "(a+)+$", "\x1b[2J", None)
_PARTS: tuple[Json, ...] = (
    {"type": "Split", "pattern": {"Regex": r"(a|a)*(?<=b)"}, "behavior": "Isolated", "invert": False},
    {"type": "Split", "pattern": {"Regex": r"\p{L}+|["}, "behavior": "Removed", "invert": True},
    {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100_000},
    {"type": "Replace", "pattern": {"Regex": "x*"}, "content": ""},
    {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    {"type": "Prepend", "prepend": ""},
    {"type": "Metaspace", "replacement": "", "prepend_scheme": "always"},
    {"type": "Unigram", "unk_id": 3, "vocab": [["a", 0.0], ["b", float("inf")]], "byte_fallback": True},
    {"type": "BPE", "vocab": {"a": 4}, "merges": [["a", "b"]], "unk_token": "a"},
    {"type": "BPE", "vocab": {"a": 4, "b": 5}, "merges": [], "dropout": 7.5},
    {"type": "WordPiece", "vocab": {"[UNK]": 4}, "unk_token": "[UNK]", "max_input_chars_per_word": 2**40},
    {"type": "BertProcessing", "sep": ["[SEP]", 2**32], "cls": ["[CLS]", -1]},
    {"type": "Sequence", "normalizers": [], "pretokenizers": [], "processors": []},
)


def count_outcomes(count: int, seed: int, bundle: Path | None = None) -> tuple[Counter[str], Counter[str], float]:
    """Load damaged bundles, open their graphs and tokenise with those that load.

    Args:
        count: how many.
        seed: of the damages.
        bundle: the whole one; by default the bundled model.

    Returns:
        How many ``loaded``, were ``refused`` or ``raw``; the raw errors by kind of damage and class; the longest
        seconds of one.
    """
    whole = default_bundle_path() if bundle is None else bundle
    random = np.random.default_rng(seed)
    outcomes: Counter[str] = Counter(loaded=0, refused=0, raw=0)
    raw: Counter[str] = Counter()
    longest = 0.0
    with tempfile.TemporaryDirectory() as place:
        for number in range(count):
            folder = Path(place, str(number))
            shutil.copytree(whole, folder, copy_function=os.link)
            kind = _damage(folder, random)
            started = time.perf_counter()
            outcome, error = _outcome(folder, opens=kind.startswith("graph"))
            longest = max(longest, time.perf_counter() - started)
            outcomes[outcome] += 1
            if error:
                raw[f"{kind}: {error}"] += 1
            shutil.rmtree(folder)
    return outcomes, raw, longest


def _outcome(folder: Path, *, opens: bool) -> tuple[str, str]:
    try:
        loaded = load_bundle(folder)
        if opens:
            open_graph(loaded, "composer", Compute("cpu"))
        tokenizer = TextTokenizer(loaded)
        for text in _TEXTS:
            tokenizer.tokenize([text])
    except CirError as error:
        is_printable = str(error).encode(errors="ignore").decode() == str(error)
        return ("refused", "") if is_printable else ("raw", f"{type(error).__name__} that cannot be printed")
    except (KeyboardInterrupt, SystemExit):
        raise
    # a PanicException of the tokenizers library is no Exception
    except BaseException as error:
        return "raw", f"{type(error).__name__} {str(error)[:80]}"
    return "loaded", ""


def _damage(folder: Path, random: Generator) -> str:
    """Damage one file of a folder, and return how."""
    manifest, tokenizer = folder / MANIFEST_FILE, folder / "tokenizer.json"
    match int(random.integers(10)):
        case 0:
            _replace(manifest, _damaged_bytes(manifest, random))
            return "manifest as bytes"
        case 1 | 2 | 3:
            _replace(manifest, _damaged_json(manifest, random))
            return "manifest as JSON"
        case 4:
            _replace(tokenizer, _damaged_bytes(tokenizer, random))
            _correct(folder, "tokenizer.json")
            return "tokenizer as bytes"
        case 5 | 6 | 7:
            _replace(tokenizer, _damaged_json(tokenizer, random))
            _correct(folder, "tokenizer.json")
            return "tokenizer as JSON"
        case 8:
            name = f"onnx/{random.choice(_GRAPHS)}.onnx"
            _replace(folder / name, _damaged_bytes(folder / name, random))
            _correct(folder, name)
            return "graph as bytes"
        case _:
            return _damage_folder(folder, random)


def _damage_folder(folder: Path, random: Generator) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[int(random.integers(len(files)))]
    path.unlink()
    match int(random.integers(5)):
        case 0:
            return "file gone"
        case 1:
            path.mkdir()
            return "folder in its place"
        case 2:
            path.symlink_to(random.choice([path.name, "/etc/passwd", "../../x", "/dev/zero"]))
            return "link in its place"
        case 3:
            os.mkfifo(path)
            return "pipe in its place"
        case _:
            path.touch()
            return "empty"


def _replace(path: Path, content: bytes) -> None:
    """Write a file anew; it is a link to the whole bundle's, which must stay as it is."""
    path.unlink()
    path.write_bytes(content)


def _correct(folder: Path, file: str) -> None:
    """Write a file's true checksum into the manifest."""
    path = folder / MANIFEST_FILE
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if file == "tokenizer.json":
        manifest["tokenizer"]["sha256"] = sha256_of(folder / file)
    else:
        manifest["graphs"][Path(file).stem]["files"][file] = sha256_of(folder / file)
    _replace(path, json.dumps(manifest).encode())


def _damaged_bytes(path: Path, random: Generator) -> bytes:
    return damaged({path.name: path.read_bytes()}, [path.name], random)[1]


def _damaged_json(path: Path, random: Generator) -> bytes:
    """Change one to three values of a JSON file, each with the same chance at every level."""
    root: Json = json.loads(path.read_text(encoding="utf-8"))
    for _ in range(int(random.integers(1, 4))):
        _change(root, random)
    text = json.dumps(root)
    if random.random() < 0.05:
        depth = int(random.choice([60, 70, 130, 5_000, 100_000]))
        text = text.replace("null", "[" * depth + "]" * depth, 1)
    return text.encode()


def _change(root: Json, random: Generator) -> None:
    place = root
    while True:
        keys: list[str] | list[int] = list(place) if isinstance(place, dict) else list(range(len(place)))  # type: ignore[arg-type]
        if not keys:
            return
        key = keys[int(random.integers(len(keys)))]
        inner = place[key]  # type: ignore[index,call-overload]
        if not isinstance(inner, dict | list) or not inner or random.random() < 0.08:
            break
        place = inner
    match int(random.integers(6)):
        case 0:
            del place[key]  # type: ignore[arg-type,union-attr]
        case 1:
            place[key] = [inner, inner]  # type: ignore[index,call-overload]
        case 2:
            place[key] = {"a": inner}  # type: ignore[index,call-overload]
        case 3:
            place[key] = deepcopy(_PARTS[int(random.integers(len(_PARTS)))])  # type: ignore[index,call-overload]
        case 4:
            place[key] = _WORDS[int(random.integers(len(_WORDS)))]  # type: ignore[index,call-overload]
        case _:
            place[key] = _NUMBERS[int(random.integers(len(_NUMBERS)))]  # type: ignore[index,call-overload]


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    outcomes, raw, longest = count_outcomes(arguments.count, arguments.seed)
    for place, times in raw.most_common():
        print(f"{times:6} {place}")
    print(json.dumps({**outcomes, "longest_s": round(longest, 3)}))
    raise SystemExit(1 if raw else 0)


if __name__ == "__main__":
    main()
