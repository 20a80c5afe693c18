"""How well a bundle answers a held-out drawn catalogue.

    python -m benchmarks.quality --out DIR                         # everything
    python -m benchmarks.quality --out DIR --only main,slices      # what needs no timing
    python -m benchmarks.quality --out DIR --only ablations        # what the re-ranker lives on
    python -m benchmarks.quality --out DIR --only precision        # int8 and float16, every token codec
    python -m benchmarks.quality --out DIR --only encoding         # a gallery encoded in int8
    python -m benchmarks.quality --out DIR --only compression      # fewer rows and dimensions of stored tokens
    python -m benchmarks.quality --out DIR --only controls --controls CONTROLS     # see benchmarks.controls

Computed on arrays, with the graphs and classes that the retriever uses; ``main`` compares some queries with the
retriever itself. Everything that takes long is kept under ``--out``: a stopped run goes on where it was.
"""
