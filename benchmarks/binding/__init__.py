"""Which part gets which look: queries that a re-ranker should be needed for, and what ranks them without one.

    python -m benchmarks.binding train --out BINDING --names both_stages --steps 600
    python -m benchmarks.binding train --out BINDING --names single_vector --steps 1000
    python -m benchmarks.binding train --out BINDING --names late_interaction --steps 2500
    python -m benchmarks.binding measure --out BINDING     # R@1 over catalogues of three seeds

A family is one drawn product of which three parts share three looks in all 27 ways, so every query's gallery holds
every permutation of what it asks for. Queries bind two looks to two parts, exchange them, chain them ("the collar like
the pocket now, and the pocket red"), compare parts, or say which part or look is not meant.

Contestants see the same frozen tokens of the bundle `drawn` and the same queries: both stages, trained on from that
bundle; one vector of 1,024 numbers; and MaxSim over tokens (``benchmarks/controls/heads.py``). These two start from the
text encoder of the bundle's composer with fresh heads, and a step costs a fifth. A stopped training goes on later.
"""
