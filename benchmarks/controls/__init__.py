"""Two ways to rank without a re-ranker, trained on the same frozen features, to compare its gain with.

    python -m benchmarks.controls --round ROUND --start BUNDLE --out CONTROLS      # trains both
    python -m benchmarks.quality --catalog CATALOG --run RUN --out OUT --only controls --controls CONTROLS

``single_vector`` is one vector of 1,024 numbers per picture and query; ``late_interaction`` sums, over the words of a
query, the best cosine among a picture's tokens (MaxSim). Both start from the text encoder of the composer that a round
of families started from, read nothing of a picture but its frozen tokens, and learn from the round's own pictures and
queries. A stopped training goes on where it was.
"""
