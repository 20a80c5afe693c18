"""Ten minutes of everything at once: memory stays flat.

``python -m benchmarks.trust.soak [--minutes 10] [--bundle FOLDER]`` indexes, searches, filters, deletes, checks and
opens a gallery again and again in one process, with damaged pictures and wrong arguments between, and prints the
resident memory every minute; the last line is JSON. The exit code is 1 where memory grew by more than a tenth after the
first third of the time.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from PIL import Image
from qdrant_client import models

import qdrant_cir

__all__ = ["main", "soak"]


def resident_megabytes() -> float:
    """Return what this process holds in memory, of Linux."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def soak(seconds: float, bundle: str, every: float = 60.0) -> tuple[list[float], Counter[str]]:
    """Work for so many seconds.

    Returns:
        Megabytes of resident memory at the start and after every minute, and how often each thing was done.
    """
    chance, done = random.Random(0), Counter[str]()
    memory = [resident_megabytes()]
    with tempfile.TemporaryDirectory() as folder:
        shown = Path(folder)
        for n in range(64):
            Image.effect_noise((200 + n, 150), 40).convert("RGB").save(shown / f"{n}.jpg")
        content = (shown / "1.jpg").read_bytes()
        places: dict[str, object] = {"store": shown / "store", "bundle": bundle, "provider": "cpu", "threads": 1}
        start = told = time.monotonic()
        while time.monotonic() - start < seconds:
            with qdrant_cir.Gallery.create("shop", **places) as gallery:  # type: ignore[arg-type]
                done["opened"] += 1
                done["indexed"] += gallery.index(shown).indexed
                for _ in range(20):
                    reference = shown / f"{chance.randrange(64)}.jpg"
                    n = chance.randrange(64)
                    named = models.FieldCondition(key="file", match=models.MatchValue(value=f"{n}.jpg"))
                    done["found"] += len(gallery.search(reference, f"in red, number {n}", limit=5))
                    done["filtered"] += len(gallery.search(reference, "blue", filter=models.Filter(must=[named])))
                    place = chance.randrange(len(content))
                    damaged = content[:place] + bytes([chance.randrange(256)]) + content[place + 1 :][: n * 200]
                    for wrong in (damaged, n, None):
                        try:
                            gallery.search(wrong, "")  # type: ignore[arg-type]
                            done["read"] += 1
                        except qdrant_cir.CirError:
                            done["refused"] += 1
                done["deleted"] += len(gallery.delete([f"{chance.randrange(64)}.jpg" for _ in range(8)]))
                done["checked"] += gallery.check(repair=True).images
            if time.monotonic() - told >= every:
                told += every
                memory.append(resident_megabytes())
                print(f"{time.monotonic() - start:6.0f} s {memory[-1]:8.1f} MB {dict(done)}", flush=True)
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    memory.append(resident_megabytes())
    return memory, done


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--bundle", default="drawn")
    arguments = parser.parse_args()
    memory, done = soak(60 * arguments.minutes, arguments.bundle)
    third = memory[len(memory) // 3]
    print(json.dumps({"megabytes": [round(each, 1) for each in memory], **done}))
    raise SystemExit(memory[-2] > 1.1 * third)


if __name__ == "__main__":
    main()
