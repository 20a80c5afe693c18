"""Two ways to rank without a re-ranker, trained on the same frozen features: what its gain is measured against.

    python -m benchmarks.controls --run RUN --out CONTROLS                         # trains both
    python -m benchmarks.controls --round ROUND --out CONTROLS                     # on what a further round drew
    python -m benchmarks.quality --out OUT --only controls --controls CONTROLS     # measures them

``single_vector`` is one vector of 1,024 numbers per picture and query; ``late_interaction`` sums, over the words of a
query, the best cosine among a picture's tokens (MaxSim). Both start from the run's grounded text encoder, as its own
stages do, read nothing of a picture but its frozen tokens, and go on with the groups that the run drew for its
re-ranker alone. With ``--round`` they start from the composer's text encoder instead and learn from a round's families.
A stopped training goes on where it was.
"""
