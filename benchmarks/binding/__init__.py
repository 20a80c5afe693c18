"""Which part gets which look: queries that a re-ranker should be needed for, and what ranks them without one.

    python -m benchmarks.binding train --out OUT --run start --task named --places fixed     # what all go on from
    python -m benchmarks.binding train --out OUT --run named --task named --after start --steps 500
    python -m benchmarks.binding measure --out OUT --run named --task named     # R@1 over catalogues of three seeds

A family is one drawn product of which three parts share three looks in all 27 ways, so every query's gallery holds
every permutation of what it asks for. In the task ``named`` queries bind two looks to two parts, exchange them, chain
them ("the collar like the pocket now, and the pocket red"), compare parts, or say which part or look is not meant. In
the task ``alike`` they say which parts are alike, in looks that neither the text nor the reference names. By default
products are of any size and stand anywhere; with ``--places fixed`` a part lies where it always lies.

Contestants see the same frozen tokens of the bundle `drawn` and the same batches: both stages, trained on from that
bundle; one vector of 1,024 numbers; and MaxSim over tokens (``benchmarks/controls/heads.py``). The heads of these two
are fresh at first, so train them longer in ``start``; their text encoder is that of the bundle's composer. A stopped
training goes on later. ``docs/quality.md`` has the numbers and the commands.
"""
