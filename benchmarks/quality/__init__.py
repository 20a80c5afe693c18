"""How well a bundle answers a held-out drawn catalogue: tables over a run of ``evaluate catalog``.

    qdrant-cir catalog build --out CATALOG --products 10000 --queries 2000 --seed 77 --size 128
    qdrant-cir evaluate catalog --root CATALOG --rerank-depth 200 --out RUN
    python -m benchmarks.quality --catalog CATALOG --run RUN --out OUT                      # everything but controls
    python -m benchmarks.quality --catalog CATALOG --run RUN --out OUT --only main,k,slices # arithmetic over the run
    python -m benchmarks.quality ... --only ablations      # what the re-ranker depends on
    python -m benchmarks.quality ... --only precision      # int8 and float16, every type of stored tokens
    python -m benchmarks.quality ... --only encoding       # a gallery encoded in int8
    python -m benchmarks.quality ... --only compression    # fewer rows and dimensions of stored tokens
    python -m benchmarks.quality ... --only controls --controls CONTROLS     # see benchmarks.controls

The run holds the scores of 200 candidates, so tables at every depth are arithmetic over it. The parts from
``ablations`` on score candidates of the run's first queries again, in another way. Their scores are kept under
``--out``: a stopped run goes on where it was.
"""
