"""The command line; see the package."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import benchmarks.quality as package
from benchmarks.quality.ablations import ablation_sections
from benchmarks.quality.bench import Bench, Settings
from benchmarks.quality.compression import compression_sections
from benchmarks.quality.controls import control_sections
from benchmarks.quality.encoding import encoding_sections
from benchmarks.quality.precision import precision_sections
from benchmarks.quality.sections import DOCUMENT, Section, keep_section, write_documents
from benchmarks.quality.tables import depth_sections, main_sections, slice_sections
from qdrant_cir.model.bundle import load_bundle

PARTS: Mapping[str, Callable[[Bench], list[Section]]] = {
    "main": main_sections,
    "k": depth_sections,
    "slices": slice_sections,
    "ablations": ablation_sections,
    "precision": precision_sections,
    "encoding": encoding_sections,
    "compression": compression_sections,
    "controls": control_sections,
}
TRAINED_APART = "controls"
"""The part that is measured only when asked for: it needs ``--controls``."""


def main(arguments: list[str] | None = None) -> None:
    """Measure the parts asked for and write the documents."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    names = asked.only.split(",")
    if not asked.out.parent.exists() or set(names) - set(PARTS):
        parser.error(f"--only takes {', '.join(PARTS)} with commas between; --out needs a folder to be in.")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if TRAINED_APART in names and asked.controls is None:
        parser.error("the part controls needs --controls FOLDER, as python -m benchmarks.controls made it.")
    bench = Bench(_settings(asked, parser), load_bundle(asked.bundle or "drawn"), catalog=asked.catalog, run=asked.run)
    for name in names:
        for section in PARTS[name](bench):
            keep_section(bench.kept / "sections", section)
            print(section.to_markdown(), flush=True)
    manifest = bench.bundle.manifest
    seed = json.loads((asked.catalog / "catalog.json").read_text(encoding="utf-8"))["seed"]
    introduction = (
        f"Bundle `{manifest.name}`, fingerprint `{bench.bundle.fingerprint[:12]}`, token codec {manifest.token_codec}. "
        "Every table stands under the command that makes it, from a catalogue and a run:",
        "",
        "```",
        f"qdrant-cir catalog build --out CATALOG --products {len(bench.image_ids)} --queries {len(bench.queries)} "
        f"--seed {seed} --size 128",
        "qdrant-cir evaluate catalog --root CATALOG --rerank-depth 200 --out RUN",
        "```",
    )
    write_documents(bench.kept / "sections", asked.out, introduction, asked.docs)
    print(f"written: {asked.out / DOCUMENT}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description=(package.__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--catalog", type=Path, required=True, help="folder of `qdrant-cir catalog build`")
    parser.add_argument("--run", type=Path, required=True, help="--out of `evaluate catalog --rerank-depth 200`")
    parser.add_argument("--out", type=Path, required=True, help="where everything is kept and written")
    parser.add_argument("--bundle", type=Path, help="that the run is of; the bundle `drawn` by default")
    usual = ",".join(name for name in PARTS if name != TRAINED_APART)
    parser.add_argument("--only", default=usual, help="parts to measure, with commas between; all but controls")
    parser.add_argument("--controls", type=Path, help="for the part of that name: a folder of benchmarks.controls")
    parser.add_argument("--ablation-queries", type=int, default=400, help="the first ones; each ablation costs a pass")
    parser.add_argument("--form-queries", type=int, default=1000, help="the same for precision, encoding, compression")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--docs", type=Path, help="also write quality.md and its plot into this folder")
    return parser


def _settings(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> Settings:
    words = ["python", "-m", "benchmarks.quality", "--catalog", "CATALOG", "--run", "RUN", "--out", "OUT"]
    for name in ("ablation_queries", "form_queries"):
        if getattr(asked, name) != parser.get_default(name):
            words += [f"--{name.replace('_', '-')}", str(getattr(asked, name))]
    if asked.bundle is not None:
        words += ["--bundle", "BUNDLE"]
    return Settings(
        out=asked.out,
        threads=asked.threads,
        command=shlex.join(words),
        ablation_queries=asked.ablation_queries,
        form_queries=asked.form_queries,
        controls=asked.controls,
    )


if __name__ == "__main__":
    main()
