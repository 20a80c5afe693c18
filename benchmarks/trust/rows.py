"""Damaged manifests: each row is read or refused with a named error, and nothing else.

``python -m benchmarks.trust.rows [--count 3000] [--seed 0]``; the last line is JSON.
The exit code is 1 where an error was raw.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.random import Generator
from pyarrow import parquet

from benchmarks.trust.damage import damaged
from qdrant_cir.errors import CirError
from qdrant_cir.indexing.preparation import checked_record, hash_image
from qdrant_cir.indexing.sources import ImageRecord, read_manifest

__all__ = ["count_outcomes", "main"]


def whole_manifests() -> dict[str, bytes]:
    """Return small manifests of every format, by name; the part before the first dash is the suffix."""
    lines = [
        {
            "file": f"{n}.png",
            "image_id": f"i{n}",
            "price": n * 1.5,
            "tags": ["a", "ü"],
            "size": {"cm": n},
            "sale": n > 3,
        }
        for n in range(8)
    ]
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    quoted = "file,image_id,note,price\n" + "".join(
        f'{n}.png,i{n},"a ""big"" one,\nof two lines",{n}.5\n' for n in range(8)
    )
    return {
        "csv": quoted.encode(),
        "csv-plain": ("file,price,article\r\n" + "".join(f"{n}.png,{n},00{n}\r\n" for n in range(9))).encode(
            "utf-8-sig"
        ),
        "jsonl": text.encode(),
        "jsonl-escaped": "\n".join(json.dumps(line) for line in lines).encode(),
        "parquet": _table("none"),
        "parquet-packed": _table("snappy"),
        "parquet-pictures": _pictures(),
    }


def odd_manifests(random: Generator) -> list[tuple[str, bytes]]:
    """Return manifests whose bytes are whole and whose values are odd."""
    digits, depth = int(random.integers(4_000, 6_000)), int(random.integers(50, 3_000))
    surrogate = "\\ud8" + "".join(random.choice(list("0123456789abcdef"), 2))
    wide = int(random.integers(100_000, 300_000))
    return [
        ("jsonl", b'{"file": "1.png", "n": ' + b"7" * digits + b'}\n{"file": "2.png"}\n'),
        ("jsonl", b'{"file": "1.png", "n": ' + b"[" * depth + b"]" * depth + b'}\n{"file": "2.png"}\n'),
        ("jsonl", b'{"file": "1.png", "n": ' + b'{"a":' * depth + b"1" + b"}" * depth + b'}\n{"file": "2.png"}\n'),
        ("jsonl", f'{{"file": "1{surrogate}.png"}}\n{{"file": "2.png"}}\n'.encode()),
        ("jsonl", f'{{"file": "1.png", "image_id": "{surrogate}", "{surrogate}": 1}}\n{{"file": "2.png"}}\n'.encode()),
        ("csv", b"file,note\n1.png," + b"x" * wide + b"\n2.png,y\n"),
        ("csv", b'file,note\n1.png,"' + b"x" * wide + b"\n2.png,y\n"),
        ("csv", b"file,note\n1.png,a\0b\n2.png,y\n"),
        ("parquet", _stamps(int(random.integers(-(2**63), 2**63)), "ns")),
        ("parquet", _stamps(int(random.integers(-(2**63), 2**63)), str(random.choice(["ms", "us"])))),
        ("parquet", _dates(int(random.integers(-(2**31), 2**31)))),
        ("parquet", _texts(random.bytes(6))),
    ]


def count_outcomes(count: int, seed: int) -> tuple[Counter[str], Counter[str], float]:
    """Read damaged manifests and check what they give.

    Returns:
        How many were ``read``, ``refused`` or ``raw``; the raw errors by format and class; the longest seconds of one.
    """
    files = whole_manifests()
    names = sorted(files)
    random = np.random.default_rng(seed)
    outcomes: Counter[str] = Counter(read=0, refused=0, raw=0)
    raw: Counter[str] = Counter()
    longest = 0.0
    odd: list[tuple[str, bytes]] = []
    with tempfile.TemporaryDirectory() as place:
        for number in range(count):
            if number % 4:
                name, content = damaged(files, names, random)
            else:
                odd = odd or odd_manifests(random)
                name, content = odd.pop()
            path = Path(place, f"m.{name.split('-')[0]}")
            path.write_bytes(content)
            started = time.perf_counter()
            outcome, error = _outcome(lambda path=path: _read(path))  # type: ignore[misc]
            longest = max(longest, time.perf_counter() - started)
            outcomes[outcome] += 1
            if error:
                raw[f"{name}: {error}"] += 1
    return outcomes, raw, longest


def _read(path: Path) -> None:
    for record in read_manifest(path):
        if isinstance(record, ImageRecord):
            try:
                hash_image(checked_record(record))
            except CirError:
                continue


def _outcome(act: Callable[[], None]) -> tuple[str, str]:
    try:
        act()
    except CirError:
        return "refused", ""
    except Exception as error:
        return "raw", type(error).__name__
    return "read", ""


def _table(compression: str) -> bytes:
    table = pa.table(
        {
            "file": [f"{n}.png" for n in range(40)],
            "count": list(range(40)),
            "price": [n / 2 for n in range(40)],
            "day": [datetime.date(2024, 1, 1)] * 40,
            "at": pa.array([1_700_000_000_000_000] * 40, pa.timestamp("us")),
            "tags": [["a", "ü"]] * 40,
        }
    )
    return _written(table, compression)


def _pictures() -> bytes:
    rows = [{"bytes": bytes([n]) * 30, "path": f"{n}.png"} for n in range(20)]
    return _written(pa.table({"image": rows, "n": list(range(20))}), "none")


def _stamps(value: int, unit: str) -> bytes:
    return _written(pa.table({"file": ["1.png", "2.png"], "at": pa.array([value, 0], pa.timestamp(unit))}), "none")


def _dates(value: int) -> bytes:
    days = pa.array([value, 0], pa.int32()).cast(pa.date32())
    return _written(pa.table({"file": ["1.png", "2.png"], "day": days}), "none")


def _texts(value: bytes) -> bytes:
    texts = pa.array([value, b"fine"], pa.binary()).view(pa.string())
    return _written(pa.table({"file": ["1.png", "2.png"], "note": texts}), "none")


def _written(table: pa.Table, compression: str) -> bytes:
    content = io.BytesIO()
    parquet.write_table(table, content, compression=compression)
    return content.getvalue()


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    outcomes, raw, longest = count_outcomes(arguments.count, arguments.seed)
    for place, times in raw.most_common():
        print(f"{times:6} {place}")
    print(json.dumps({**outcomes, "longest_s": round(longest, 3)}))
    raise SystemExit(1 if raw else 0)


if __name__ == "__main__":
    main()
