"""The service over real HTTP: generated cases, 32 clients for a minute, and the first event beside a plain search.

    .venv/bin/qdrant-cir demo && .venv/bin/python -m benchmarks.service --demo demo [first-event] [load] [cases]

Runs ``qdrant-cir serve`` as a process over a copy of the demonstration's store and asks it as clients do.

``first-event``: seconds until a streamed answer's first event is there, one client, beside
``Retriever.search(rerank_depth=0)`` in this process, in turn; the ratio is the median over pairs. A query that is
refused for its collection, with the same body, shows what HTTP alone costs, this client's part included.
``load``: clients that ask without a pause, every fourth as a stream, every sixteenth of which goes away after the first
event. Counts the statuses, and reads the resident memory of the service every second.
``cases``: schemathesis in all its phases, with fixed seeds, until so many cases were sent; counts answers of 5xx.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import httpx

from benchmarks.machine import LoadMeter, describe_machine, median_ratio
from qdrant_cir.model.cores import available_threads
from qdrant_cir.retriever import Retriever
from qdrant_cir.types import GalleryImage, JsonObject, Query

PARTS = ("first-event", "load", "cases")
COLLECTION = "catalog"
STARTING_SECONDS = 60
CASES_PER_ROUND = 100
"""The most cases of one operation and phase that schemathesis generates in one run of it."""


@dataclass(slots=True)
class Load:
    """What clients saw, and what the service held meanwhile.

    Attributes:
        statuses: answers by status; ``left`` for streams that the client left, an error's class where none came.
        seconds: of every whole answer.
        megabytes: resident memory of the service, once a second.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all of them by default")
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="folder of `qdrant-cir demo`")
    parser.add_argument("-K", "--rerank-depth", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=60, help="pairs of first-event")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60, help="of load")
    parser.add_argument("--cases", type=int, default=5000)
    arguments = parser.parse_args()
    bodies = read_bodies(arguments.demo / "catalog", depth=arguments.rerank_depth)
    print(describe_machine(available_threads(), packages=("onnxruntime", "qdrant-edge-py", "fastapi", "uvicorn")))
    load = LoadMeter()
    with tempfile.TemporaryDirectory() as folder, served(arguments.demo / "store", Path(folder)) as (address, process):
        for part in arguments.parts or PARTS:
            if part == "first-event":
                report_first_event(address, arguments.demo / "store", bodies, arguments.rounds)
            elif part == "load":
                found = asyncio.run(ask_together(address, bodies, process.pid, arguments.clients, arguments.seconds))
                report_load(found, arguments.clients, arguments.seconds)
            else:
                report_cases(address, arguments.cases, Path(folder))
        began = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        print(f"SIGTERM: exit {process.wait(60)} after {time.perf_counter() - began:.2f} s")
    print(f"processes but this one, the service among them, kept {load.cores_taken():.1f} cores busy")


def read_bodies(catalog: Path, *, depth: int) -> list[JsonObject]:
    """Return the catalogue's queries as bodies of ``POST /search``."""
    lines = (catalog / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [
        {
            "collection": COLLECTION,
            "reference": {"id": row["reference"]},
            "text": row["modification_text"],
            "limit": depth,
            "rerank_depth": depth,
        }
        for row in rows
    ]


@contextmanager
def served(store: Path, folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Serve a copy of a store, which one process alone may hold, until the block ends."""
    shutil.copytree(store, folder / "store")
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from qdrant_cir.cli import main; main()", "serve"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--path", str(folder / "store"), "-c", COLLECTION, "--port", str(port)],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until_ready(address, process, folder / "log")
            yield address, process
        finally:
            process.kill()
            process.wait()


def wait_until_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for ``/readyz``; ends this process with the service's log where it does not come."""
    ends = time.perf_counter() + STARTING_SECONDS
    while time.perf_counter() < ends and process.poll() is None:
        try:
            if httpx.get(f"{address}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"The service did not become ready:\n{log.read_text(encoding='utf-8')}")


def report_first_event(address: str, store: Path, bodies: Sequence[JsonObject], rounds: int) -> None:
    """Time the first event and the plain search in turn, each first every other time."""
    seconds: dict[str, list[float]] = {"first event": [], "refused": [], "search": []}
    client = HTTPConnection(address.removeprefix("http://"), timeout=60)
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    with Retriever.open(COLLECTION, store=store) as retriever, closing(client):

        def first_event(body: JsonObject) -> float:
            sent = json.dumps(body).encode()
            start = time.perf_counter()
            client.request("POST", "/search", sent, headers)
            answer = client.getresponse()
            event, data = answer.readline(), answer.readline()
            spent = time.perf_counter() - start
            if event.strip() != b"event: retrieved" or not data.startswith(b"data:"):
                raise SystemExit(f"The first event was {event!r}.")
            # the rest is read, so that the next query meets an idle service
            answer.read()
            return spent

        def refused(body: JsonObject) -> float:
            sent = json.dumps({**body, "collection": "none"}).encode()
            start = time.perf_counter()
            client.request("POST", "/search", sent, headers)
            client.getresponse().read()
            return time.perf_counter() - start

        def search(body: JsonObject) -> float:
            reference, text, limit = body["reference"], body["text"], body["limit"]
            query = Query(GalleryImage(reference["id"]), str(text))  # type: ignore[index, call-overload, arg-type]
            start = time.perf_counter()
            retriever.search(query, limit=int(limit), rerank_depth=0)  # type: ignore[arg-type]
            return time.perf_counter() - start

        runs = {"first event": first_event, "refused": refused, "search": search}
        for turn in range(-5, rounds):
            for name in list(runs)[:: 1 if turn % 2 == 0 else -1]:
                spent = runs[name](bodies[turn % len(bodies)])
                if turn >= 0:
                    seconds[name].append(spent)
    for name, of in seconds.items():
        print(f"{name:12} median {1000 * statistics.median(of):6.1f} ms, best {1000 * min(of):6.1f} ms")
    ratio = median_ratio(seconds["first event"], seconds["search"])
    print(f"first event / Retriever.search(rerank_depth=0): {ratio:.2f} ({rounds} pairs)")
    spent = zip(seconds["first event"], seconds["refused"], strict=True)
    without = median_ratio([event - http for event, http in spent], seconds["search"])
    print(f"without the time of a refused query: {without:.2f}")


async def ask_together(address: str, bodies: Sequence[JsonObject], pid: int, clients: int, seconds: float) -> Load:
    """Let clients ask at the same time, and watch the service's memory."""
    load, ends = Load(), time.perf_counter() + seconds
    limits = httpx.Limits(max_connections=clients)

    async def client_of(place: int, client: httpx.AsyncClient) -> None:
        # clients are at different turns, so that streams and those that leave are there at any time
        turn = place
        while time.perf_counter() < ends:
            body = bodies[(place * 31 + turn) % len(bodies)]
            streams, leaves = turn % 4 == 3, turn % 16 == 15
            turn += 1
            start = time.perf_counter()
            accept = {"Accept": "text/event-stream" if streams else "application/json"}
            try:
                async with client.stream("POST", f"{address}/search", json=body, headers=accept) as answer:
                    if leaves and answer.status_code == 200:
                        await anext(answer.aiter_lines())
                        load.statuses["left"] += 1
                        continue
                    text = (await answer.aread()).decode()
                failed = "error in a stream" if streams and "event: error" in text else str(answer.status_code)
                load.statuses[failed] += 1
            except httpx.HTTPError as error:
                load.statuses[type(error).__name__] += 1
                continue
            if answer.status_code == 200:
                load.seconds.append(time.perf_counter() - start)
            elif answer.status_code == 429:
                # a client that waits as long as it is told would hardly load the service
                await asyncio.sleep(min(float(answer.headers["Retry-After"]), 0.2))

    async def watch() -> None:
        while time.perf_counter() < ends:
            load.megabytes.append(resident_megabytes(pid))
            await asyncio.sleep(1)

    async with httpx.AsyncClient(timeout=60, limits=limits) as client:
        await asyncio.gather(watch(), *(client_of(place, client) for place in range(clients)))
    return load


def report_load(load: Load, clients: int, seconds: float) -> None:
    """Print the counts, the times and the memory of the first and the last quarter."""
    counts = ", ".join(f"{count} x {status}" for status, count in load.statuses.most_common())
    print(f"{clients} clients for {seconds:.0f} s: {counts}")
    if len(load.seconds) > 1:
        middle, slow = statistics.median(load.seconds), statistics.quantiles(load.seconds, n=20)[-1]
        print(f"whole answers: {len(load.seconds) / seconds:.1f}/s, median {middle:.2f} s, 95 % below {slow:.2f} s")
    quarter = max(1, len(load.megabytes) // 4)
    # the first seconds load what is needed once
    early, late = load.megabytes[quarter : 2 * quarter], load.megabytes[-quarter:]
    if early and late:
        print(
            f"resident memory: second quarter {statistics.median(early):.0f} MB, last quarter "
            f"{statistics.median(late):.0f} MB, most {max(load.megabytes):.0f} MB"
        )


def report_cases(address: str, cases: int, folder: Path) -> None:
    """Run schemathesis with one seed after the other until so many cases were sent."""
    sent, statuses, failures, seed = 0, Counter[int](), Counter[str](), 0
    while sent < cases:
        seed += 1
        file = folder / f"cases{seed}.har"
        subprocess.run(
            [
                *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"),
                *(f"{address}/openapi.json", "--seed", str(seed)),
                *("--max-examples", str(CASES_PER_ROUND), "--continue-on-failure", "--workers", "2"),
                *("--suppress-health-check", "all", "--no-color", "--report", "har", "--report-har-path", str(file)),
            ],
            check=False,
            stdout=(folder / "schemathesis.log").open("ab"),
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
            # what it found lies in a folder of its own
            cwd=folder,
        )
        entries = json.loads(file.read_text(encoding="utf-8"))["log"]["entries"]
        if not entries:
            raise SystemExit((folder / "schemathesis.log").read_text(encoding="utf-8"))
        statuses.update(entry["response"]["status"] for entry in entries)
        failures.update(
            f"{entry['request']['method']} {httpx.URL(entry['request']['url']).path}: {entry['response']['status']}"
            for entry in entries
            if entry["response"]["status"] >= 500
        )
        sent += len(entries)
    print(f"{sent} cases of schemathesis, {seed} seeds, all phases: {sum(failures.values())} answers of 5xx")
    print("by status: " + ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items())))
    for failure, count in failures.most_common(10):
        print(f"  {count} x {failure}")


def resident_megabytes(pid: int) -> float:
    """Return the resident memory of a process; nan off Linux."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


if __name__ == "__main__":
    main()
