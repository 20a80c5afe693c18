"""The command line: parse, call, print. ``docs/cli.md`` is generated from it.

``typer qdrant_cir.cli.app utils docs --name qdrant-cir --output docs/cli.md`` writes that page.
"""

from qdrant_cir.cli.app import app, main

__all__ = ["app", "main"]
