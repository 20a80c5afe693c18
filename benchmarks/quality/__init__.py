"""How well a bundle answers a held-out drawn catalogue, and what its gain is made of.

    python -m benchmarks.quality --out DIR                         # everything that needs no training run
    python -m benchmarks.quality --out DIR --only main,k,slices    # the quick part
    python -m benchmarks.quality --out DIR --only controls --run RUN
    python -m benchmarks.quality --out DIR --only ablations --model RUN/model

Computed on arrays, with the graphs and classes that the retriever uses; ``main`` compares some queries with the
retriever itself. Everything that takes long is kept under ``--out``: a stopped run goes on where it was.
"""
