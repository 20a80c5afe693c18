"""What minutes of fine-tuning give the bundled model on a catalogue variant that it has not seen.

    python -m benchmarks.finetune --out OUT

The variant is a shop whose texts name colours as its own colour card does (``benchmarks/color_card.py``). One catalogue
is drawn to train on and another, with other pictures, queries and sentence templates, to test on. Then the tool's own
commands run: ``evaluate own``, ``train own``, ``export``, ``evaluate own``. Every test query is asked in both wordings:
by the card, which shows what was learnt, and in ordinary words, which shows what the variant costs the model and what
it forgot. A stopped run goes on where it was. Writes ``finetune.md`` and ``finetune.json`` into OUT.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.color_card import CARD, ORDINARY, TEST_FILE, TRAINING_FILE, write_test, write_training
from benchmarks.machine import describe_machine
from qdrant_cir.drawn.dataset import sample_drawn
from qdrant_cir.evaluation.report.bootstrap import Interval, bootstrap_means, interval_of
from qdrant_cir.model.cores import available_threads

METRICS = ("R@1", "R@10")
WORDINGS = {CARD: "by the card", ORDINARY: "in ordinary words"}
LEVELS = ("before, stage one", "before, stage two", "after, stage one", "after, stage two")
GAINS = {
    "stage one, after - before": (2, 0),
    "stage two, after - before": (3, 1),
    "before, stage two - one": (1, 0),
    "after, stage two - one": (3, 2),
}
"""Columns of ``LEVELS`` that a gain subtracts."""

SETTINGS = ("steps_one", "steps_two", "rate_one", "rate_two", "evaluate_every", "held_out")
_CLI = ("-c", "from qdrant_cir.cli import main; main()")
_RESAMPLES, _SEED = 2000, 0


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of one wording, in points out of 100; gains are paired by query."""

    wording: str
    metric: str
    queries: int
    levels: Mapping[str, Interval]
    gains: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class Step:
    """One command as one would type it in OUT, and the seconds that it took when it ran."""

    command: str
    seconds: float


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    machine, load = describe_machine(available_threads()), os.getloadavg()[0]
    steps = [_draw(asked), *(_run(asked.out, command) for command in _commands(asked))]
    rows = compare(asked.out / "before" / "queries.jsonl", asked.out / "after" / "queries.jsonl")
    about = f"{machine}; load average {load:.1f} before it began."
    text = to_markdown(rows, steps, command=_own_command(asked, parser), about=about)
    (asked.out / "finetune.md").write_text(text, encoding="utf-8")
    kept = {
        "machine": asdict(machine),
        "steps": [asdict(step) for step in steps],
        "rows": [asdict(row) for row in rows],
    }
    (asked.out / "finetune.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    print(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetune", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="where everything is kept and written")
    parser.add_argument("--bundle", type=Path, help="bundle to start from; the bundled model by default")
    parser.add_argument("--products", type=int, default=2400, help="pictures to train on")
    parser.add_argument("--queries", type=int, default=480, help="triplets to train on")
    parser.add_argument("--test-products", type=int, default=1000)
    parser.add_argument("--test-queries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=501, help="of the training catalogue; the test's is one more")
    parser.add_argument("-K", "--rerank-depth", type=int, default=50)
    parser.add_argument("--steps-one", type=int, default=400)
    parser.add_argument("--steps-two", type=int, default=200)
    parser.add_argument("--rate-one", type=float, default=3e-4)
    parser.add_argument("--rate-two", type=float, default=2e-4)
    parser.add_argument("--evaluate-every", type=int, default=50)
    parser.add_argument("--held-out", type=float, default=0.1, help="share of the training references to stop early by")
    return parser


def _own_command(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> str:
    """Give the command that measures this, as one would type it."""
    words = ["python", "-m", "benchmarks.finetune", "--out", "OUT"]
    for name in ("products", "queries", "test_products", "test_queries", "seed", "rerank_depth", *SETTINGS):
        if getattr(asked, name) != parser.get_default(name):
            words += [f"--{name.replace('_', '-')}", str(getattr(asked, name))]
    return shlex.join(words if asked.bundle is None else [*words, "--bundle", "BUNDLE"])


def _draw(asked: argparse.Namespace) -> Step:
    """Draw both catalogues and write their texts; pictures that are there are kept."""
    began = time.perf_counter()
    training = sample_drawn(asked.seed, products=asked.products, queries=asked.queries, split="train")
    write_training(training, asked.out / "train")
    test = sample_drawn(asked.seed + 1, products=asked.test_products, queries=asked.test_queries, split="test")
    write_test(test, asked.out / "test")
    return Step("(both catalogues drawn)", time.perf_counter() - began)


def _commands(asked: argparse.Namespace) -> list[str]:
    """Give the commands in their order; paths are relative to OUT."""
    bundle = "" if asked.bundle is None else shlex.quote(str(asked.bundle.resolve()))
    settings = " ".join(f"--{name.replace('_', '-')} {getattr(asked, name)}" for name in SETTINGS)
    judge = f"qdrant-cir evaluate own --root test --queries test/{TEST_FILE} --rerank-depth {asked.rerank_depth}"
    train = f"python -m onnx_export train own --data own --root train --queries train/{TRAINING_FILE} --run run"
    return [
        f"{judge} --out before" + (bundle and f" --bundle {bundle}"),
        f"{train} {settings}" + (bundle and f" --start {bundle}"),
        "python -m onnx_export export run/model --out bundle --name fine-tuned",
        f"{judge} --out after --bundle bundle",
    ]


def _run(out: Path, command: str) -> Step:
    """Run one command in OUT; one that ended well before is passed over."""
    done = out / "done.json"
    finished: dict[str, float] = json.loads(done.read_text(encoding="utf-8")) if done.exists() else {}
    if command not in finished:
        print(command, flush=True)
        began = time.perf_counter()
        program, *words = shlex.split(command)
        call = [*_CLI, *words] if program == "qdrant-cir" else words
        subprocess.run([sys.executable, *call], cwd=out, check=True, stdout=subprocess.DEVNULL)
        finished[command] = time.perf_counter() - began
        done.write_text(json.dumps(finished, indent=2) + "\n", encoding="utf-8")
    return Step(command, finished[command])


def compare(before: Path, after: Path) -> list[Row]:
    """Compare two per-query files of `evaluate own` over the same queries, wording by wording."""
    found = [
        {line["query_id"]: line for line in map(json.loads, path.read_text(encoding="utf-8").splitlines())}
        for path in (before, after)
    ]
    rows = []
    for wording in WORDINGS:
        names = [name for name, line in found[0].items() if line["labels"] == [wording] and "final" in line]
        for metric in METRICS:
            levels = 100 * np.array(
                [[run[name][stage][metric] for run in found for stage in ("retrieved", "final")] for name in names]
            )
            rows.append(_row(wording, metric, levels))
    return rows


def _row(wording: str, metric: str, levels: NDArray[np.float64]) -> Row:
    gains = [levels[:, one] - levels[:, other] for one, other in GAINS.values()]
    table = np.column_stack((levels, *gains))
    draws = bootstrap_means([table], [np.arange(len(table))], resamples=_RESAMPLES, seed=_SEED)
    found = [interval_of(float(mean), draws[:, column]) for column, mean in enumerate(table.mean(axis=0))]
    count = len(LEVELS)
    return Row(
        wording,
        metric,
        len(levels),
        dict(zip(LEVELS, found[:count], strict=True)),
        dict(zip(GAINS, found[count:], strict=True)),
    )


def to_markdown(rows: Sequence[Row], steps: Sequence[Step], *, command: str, about: str) -> str:
    """Write both tables, the commands and the machine."""
    lines = ["# Fine-tuning on a catalogue variant", "", "```", command, "```", ""]
    lines += [f"{rows[0].queries} test queries in each wording; 95 % bootstrap intervals, gains paired by query.", ""]
    for names, values, sign in ((LEVELS, "levels", ""), (tuple(GAINS), "gains", "+")):
        lines += [f"| texts | metric | {' | '.join(names)} |", f"|---|---|{'---:|' * len(names)}"]
        for row in rows:
            cells = [_in_words(getattr(row, values)[name], sign) for name in names]
            lines.append(f"| {WORDINGS[row.wording]} | {row.metric} | {' | '.join(cells)} |")
        lines.append("")
    lines += ["| command | seconds |", "|---|---:|"]
    lines += [f"| `{step.command}` | {step.seconds:.0f} |" for step in steps]
    return "\n".join([*lines, "", about, ""])


def _in_words(interval: Interval, sign: str) -> str:
    return f"{interval.value:{sign}.1f} [{interval.low:{sign}.1f}, {interval.high:{sign}.1f}]"


if __name__ == "__main__":
    main()
