"""The embedded engine needs no network: a whole run looks up no host, connects to none, and writes only its folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

RUN = """
import json, os, sys
from pathlib import Path

seen = {"network": [], "written": []}
NETWORK = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.connect", "socket.sendto")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT

def record(event, arguments):
    if event in NETWORK:
        seen["network"].append([event, repr(arguments[-1] if event == "socket.connect" else arguments)])
    elif event == "open" and isinstance(arguments[0], str) and arguments[2] & WRITES:
        seen["written"].append(os.path.abspath(arguments[0]))

sys.addaudithook(record)
store, bundle, pictures = map(Path, sys.argv[1:])
import qdrant_cir
with qdrant_cir.Gallery.create("shop", store=store, bundle=bundle) as gallery:
    assert gallery.index(pictures).indexed == 2
    assert len(gallery.search(pictures / "red.png", "in blue", limit=2).candidates) == 2
    assert gallery.info().images == 2
print(json.dumps(seen))
"""


def test_a_run_on_the_embedded_engine_asks_no_host_and_writes_its_folder_alone(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    pictures, store, home, passing = (tmp_path / name for name in ("pictures", "store", "home", "passing"))
    for folder in (pictures, home, passing):
        folder.mkdir()
    for color in ("red", "blue"):
        Image.new("RGB", (8, 8), color).save(pictures / f"{color}.png")
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(home),
        "TMPDIR": str(passing),
    }
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "QDRANT_URL"):
        environment.pop(name, None)
    run = [sys.executable, "-c", RUN, *map(str, (store, tiny_bundle, pictures))]
    done = subprocess.run(run, env=environment, check=True, capture_output=True, text=True)
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["network"] == []
    # Python tries whether files can be made in the folder for passing ones
    written = [Path(path) for path in seen["written"] if path != os.devnull]
    assert [path for path in written if not (path.is_relative_to(store) or path.is_relative_to(passing))] == []
    assert [*home.rglob("*"), *passing.rglob("*")] == []
