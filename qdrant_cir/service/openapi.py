"""Print the description of the service's interface: ``python -m qdrant_cir.service.openapi > docs/openapi.json``."""

from __future__ import annotations

import json
import sys

from qdrant_cir.service.answering import Settings
from qdrant_cir.service.app import create_app

if __name__ == "__main__":
    json.dump(create_app({}, Settings()).openapi(), sys.stdout, indent=1)
    sys.stdout.write("\n")
