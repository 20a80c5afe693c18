"""How well a bundle answers a held-out drawn catalogue.

    python -m benchmarks.quality --out DIR                         # everything
    python -m benchmarks.quality --out DIR --only main,slices      # what needs no timing

Computed on arrays, with the graphs and classes that the retriever uses; ``main`` compares some queries with the
retriever itself. Everything that takes long is kept under ``--out``: a stopped run goes on where it was.
"""
