"""What Qdrant holds and sends for one picture's tokens, in several forms of the same bytes.

    python -m benchmarks.stored_bytes [--pictures 300] [--bytes 23904] [--read 100] [--rounds 9]

Random bytes, as int8 tokens nearly are, in a payload with the bookkeeping of a real record, or in a vector. On disk:
the segments of a shard of Qdrant Edge after a flush and an optimisation, and its log beside them, per picture. Sent:
the bytes of a record in the JSON of an answer over REST, in UTF-8 and without spaces. Reading: records by id from
Edge, and the same JSON parsed as a client over REST does, both to bytes that are compared, in processor time. Rounds
alternate; times as shares of today's base64 are medians over paired rounds.
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import qdrant_edge as edge

from benchmarks.machine import LoadMeter, alternate_timings, describe_machine, median_ratio

VECTOR = "tokens"
ROW = 240
"""Numbers in a row of a multivector."""

BOOKKEEPING = {
    "id": "images/p000006.jpg",
    "sha256": "0f" * 32,
    "bundle": "6a" * 32,
    "fields": ["category", "colour", "price"],
}

Stored = str | list[int] | list[list[float]]


@dataclass(frozen=True, slots=True)
class Form:
    """A form of bytes: written into a payload, or where ``vector`` is set into a vector."""

    write: Callable[[bytes], Stored]
    read: Callable[[Stored], bytes]
    vector: bool = False


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--bytes", type=int, default=23_904)
    parser.add_argument("--read", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    pictures = [random.bytes(arguments.bytes) for _ in range(arguments.pictures)]
    ids = random.choice(arguments.pictures, arguments.read, replace=False).tolist()
    print(f"{describe_machine(1, packages=('qdrant-edge-py', 'numpy'))}; {arguments.bytes} bytes a picture")
    load = LoadMeter()
    with tempfile.TemporaryDirectory() as scratch:
        shards = {name: filled(Path(scratch) / name, form, pictures) for name, form in FORMS.items()}
        answers = {name: answer(shard, ids) for name, shard in shards.items()}
        from_edge = {name: reading(shards[name], form, ids, pictures) for name, form in FORMS.items()}
        from_json = {name: parsing(answers[name], form, ids, pictures) for name, form in FORMS.items()}
        timed = [alternate_timings(runs, rounds=arguments.rounds) for runs in (from_edge, from_json)]
        processor = [{name: [t.processor for t in of] for name, of in each.items()} for each in timed]
        disk = {name: folder_bytes(Path(scratch) / name) for name in FORMS}
    first = next(iter(FORMS))
    print(f"{'':24} {'on disk':>9} {'log':>8} {'sent':>9}   read {arguments.read} from Edge         from JSON")
    for name in FORMS:
        times = "".join(
            f"{1e3 * statistics.median(each[name]):8.1f} ms {1 / median_ratio(each[first], each[name]):6.2f}x  "
            for each in processor
        )
        kept, log = disk[name]
        print(
            f"{name:24} {kept / len(pictures) / 1e3:6.1f} KB {log / len(pictures) / 1e3:5.1f} KB "
            f"{len(answers[name]) / len(ids) / 1e3:6.1f} KB {times}"
        )
    print(f"other processes kept {load.cores_taken():.1f} cores busy")


def filled(folder: Path, form: Form, pictures: list[bytes]) -> edge.EdgeShard:
    """Write a shard, flush it and optimise it."""
    folder.mkdir()
    shard = edge.EdgeShard.create(str(folder), config_of(form))
    for start in range(0, len(pictures), 50):
        points = []
        for place, data in enumerate(pictures[start : start + 50], start):
            stored, payload = form.write(data), {"_cir": BOOKKEEPING, "crc": 1}
            vector: dict[str, object] = {VECTOR: stored} if form.vector else {}
            points.append(edge.Point(place, vector, payload if form.vector else {**payload, VECTOR: stored}))
        shard.update(edge.UpdateOperation.upsert_points(points))
    shard.flush()
    shard.optimize()
    shard.flush()
    return shard


def config_of(form: Form) -> edge.EdgeConfig:
    """Return a shard without vectors, as a companion is, or with one of whole numbers to 255."""
    if not form.vector:
        unused = {"unused": edge.EdgeSparseVectorParams()}
        return edge.EdgeConfig(sparse_vectors=unused, payload_memory=edge.Memory.Cached)
    params = edge.EdgeVectorParams(
        ROW,
        edge.Distance.Dot,
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
        datatype=edge.VectorStorageDatatype.Uint8,
        hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=10_000),
    )
    return edge.EdgeConfig(vectors={VECTOR: params}, payload_memory=edge.Memory.Cached)


def answer(shard: edge.EdgeShard, ids: list[int]) -> bytes:
    """Return what a server would send for these records."""
    records = [
        {"id": found.id, "payload": found.payload, "vector": found.vector}
        for found in shard.retrieve(ids, with_payload=True, with_vector=True)
    ]
    return json.dumps({"result": records}, ensure_ascii=False, separators=(",", ":")).encode()


def reading(shard: edge.EdgeShard, form: Form, ids: list[int], pictures: list[bytes]) -> Callable[[], None]:
    """Return a run that reads records from the shard and compares their bytes."""

    def run() -> None:
        for found in shard.retrieve(ids, with_payload=True, with_vector=form.vector):
            held = found.vector if form.vector else found.payload
            assert_same(form, held, pictures[int(found.id)])

    return run


def parsing(sent: bytes, form: Form, ids: list[int], pictures: list[bytes]) -> Callable[[], None]:
    """Return a run that parses an answer and compares the records' bytes."""

    def run() -> None:
        for found in json.loads(sent)["result"]:
            held = found["vector"] if form.vector else found["payload"]
            assert_same(form, held, pictures[found["id"]])

    return run


def assert_same(form: Form, held: Mapping[str, Stored], data: bytes) -> None:
    """Read bytes back. Raises ValueError where they are others."""
    if form.read(held[VECTOR])[: len(data)] != data:
        raise ValueError("other bytes came back")


def folder_bytes(folder: Path) -> tuple[int, int]:
    """Return the bytes on disk of a shard's segments and of its log, as the file system allots them."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    log = sum(file.stat().st_blocks for file in files if "wal" in file.relative_to(folder).parts)
    return 512 * (sum(file.stat().st_blocks for file in files) - log), 512 * log


def as_seven_bits(data: bytes) -> str:
    """Write 7 bytes as 8 characters of ASCII."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    padded = np.pad(bits, (0, -len(bits) % 7)).reshape(-1, 7)
    return np.packbits(np.pad(padded, ((0, 0), (1, 0)))).tobytes().decode("ascii")


def of_seven_bits(text: Stored) -> bytes:
    """Read what :func:`as_seven_bits` wrote, with up to a byte of zeros behind."""
    bits = np.unpackbits(np.frombuffer(str(text).encode("ascii"), np.uint8)).reshape(-1, 8)
    return np.packbits(bits[:, 1:]).tobytes()


def as_fifteen_bits(data: bytes) -> str:
    """Write 15 bits as a character from U+3400 to U+B3FF, three bytes of UTF-8."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    padded = np.pad(bits, (0, -len(bits) % 15)).reshape(-1, 15)
    numbers = np.packbits(np.pad(padded, ((0, 0), (1, 0)))).view(">u2") + 0x3400
    return numbers.astype("<u2").tobytes().decode("utf-16-le")


def of_fifteen_bits(text: Stored) -> bytes:
    """Read what :func:`as_fifteen_bits` wrote, with zeros behind."""
    numbers = np.frombuffer(str(text).encode("utf-16-le"), "<u2") - 0x3400
    bits = np.unpackbits(numbers.astype(">u2").view(np.uint8)).reshape(-1, 16)
    return np.packbits(bits[:, 1:]).tobytes()


def as_whole_numbers(data: bytes) -> list[int]:
    """Write 8 bytes as a whole number."""
    return np.frombuffer(data.ljust(-(-len(data) // 8) * 8, b"\0"), "<i8").tolist()


def as_rows(data: bytes) -> list[list[float]]:
    """Write bytes as rows of numbers to 255."""
    whole = data.ljust(-(-len(data) // ROW) * ROW, b"\0")
    return np.frombuffer(whole, np.uint8).astype(float).reshape(-1, ROW).tolist()


FORMS: Mapping[str, Form] = {
    "base64 (today)": Form(
        lambda data: base64.b64encode(data).decode("ascii"), lambda t: base64.b64decode(str(t), validate=True)
    ),
    "base85": Form(lambda data: base64.b85encode(data).decode("ascii"), lambda t: base64.b85decode(str(t))),
    "ASCII, 7 bits each": Form(as_seven_bits, of_seven_bits),
    "U+0000 to U+00FF": Form(lambda data: data.decode("latin-1"), lambda t: str(t).encode("latin-1")),
    "15 bits a character": Form(as_fifteen_bits, of_fifteen_bits),
    "whole numbers of 64 bits": Form(as_whole_numbers, lambda t: np.array(t, "<i8").tobytes()),
    "multivector of uint8": Form(as_rows, lambda t: np.array(t, np.uint8).tobytes(), vector=True),
}
"""Each form, the first being today's. base91 is left out: Python decodes it a character at a time."""


if __name__ == "__main__":
    main()
