"""Full disks: no command is ended by a signal, and each says in one sentence what is wrong.

``python -m benchmarks.trust.full_disks [--checkout FOLDER]`` counts how ``index``, ``search`` and ``delete`` end on
file systems of 18 sizes that are really mounted, in memory and in a mount namespace of their own; the last line is
JSON. It needs the right to mount. ``--checkout`` runs the commands of another version. The exit code is 1 where a
signal ended one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from PIL import Image

__all__ = ["can_mount", "count_endings", "main"]

SIZES = [1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 32, 36, 40, 48, 64, 80]
"""Megabytes."""

MAIN = "from qdrant_cir.cli.app import main; main()"

SCRIPT = """
mount -t tmpfs -o size=$SIZE tmpfs "$PLACE" || exit 99
run() { "$PYTHON" -W ignore -c "$MAIN" "$@" --path "$PLACE/store" >/dev/null 2>"$PLACE.notes"; echo "$1 $?"
    tail -n 1 "$PLACE.notes"; }
run index "$PICTURES" -c shop
# another program fills what is left
dd if=/dev/zero of="$PLACE/filler" bs=4096 2>/dev/null
run search --image "$PICTURES/0.png" -c shop
run index "$PICTURES" -c shop
run delete --all --yes -c shop
"""


def can_mount() -> bool:
    """Return whether this process may mount a file system in a namespace of its own."""
    try:
        return subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=False).returncode == 0
    except OSError:
        return False


def count_endings(sizes: list[int], pictures: int, checkout: Path) -> tuple[Counter[str], list[str]]:
    """Run the commands on disks of so many MB.

    Returns:
        How often each command ended in which way: ``index done``, ``search refused``, ``index by signal 7``; and the
        sentences of those that were refused.
    """
    endings: Counter[str] = Counter()
    sentences: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        shown = Path(folder, "pictures")
        shown.mkdir()
        for n in range(pictures):
            Image.effect_noise((64, 64), 20 + n).convert("RGB").save(shown / f"{n}.png")
        for size in sizes:
            place = Path(folder, "disk")
            place.mkdir(exist_ok=True)
            environment = {
                **os.environ,
                "SIZE": f"{size}m",
                "PLACE": str(place),
                "PYTHON": sys.executable,
                "PYTHONPATH": str(checkout),
                "MAIN": MAIN,
                "PICTURES": str(shown),
                "OMP_NUM_THREADS": "1",
            }
            done = subprocess.run(
                ["unshare", "-m", "bash", "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode == 99:
                raise RuntimeError(f"The file system cannot be mounted: {done.stderr}")
            lines = done.stdout.splitlines()
            for place_of, line in enumerate(lines):
                words = line.split()
                if len(words) == 2 and words[0] in ("index", "search", "delete") and words[1].isdigit():
                    code = int(words[1])
                    ending = "done" if code == 0 else f"by signal {code - 128}" if code > 128 else "refused"
                    endings[f"{words[0]} {ending}"] += 1
                    if ending == "refused" and place_of + 1 < len(lines):
                        sentences.append(lines[place_of + 1])
    return endings, sentences


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parents[2])
    parser.add_argument(
        "--sizes", type=int, nargs="*", default=[1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 32, 36, 40, 48, 64, 80]
    )
    arguments = parser.parse_args()
    endings, sentences = count_endings(arguments.sizes, arguments.pictures, arguments.checkout.resolve())
    for sentence in dict.fromkeys(sentences):
        print(sentence)
    print(json.dumps(dict(sorted(endings.items()))))
    raise SystemExit(any("signal" in ending for ending in endings))


if __name__ == "__main__":
    main()
