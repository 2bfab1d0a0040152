"""The stochastic L-system of FreeCOS (Shi et al., ICCV 2023): sentences of F, +, -, [ and ] by rewriting every F.

All symbols of a sentence are rewritten at once (Lindenmayer, 1968). Here an explicit stack expands all generations depth-first
from left to right, which gives the same sentence without storing the earlier generations.
"""

import numpy as np
from numba import njit

from ..counter_rng import fold64, uniform64

#: Replacements of an F. An L-system has three of these in order; `rule_weights` choose among them for every F.
RULES = ("F-F[+F-F][-F+F]", "F+F[+F[+F]-F]-F+F[+F-F[+F]-F]", "F[+F]+F[+F]+F[+F]", "F-F-F[+F-F][-F-F]F+F")
RULE_SETS = ((0, 1, 2), (3, 2, 0))
AXIOMS = ("F", "[+F-F][-F]")
MAX_ITERATIONS = 6
#: Brackets are nested at most twice in a rule, once in an axiom.
MAX_BRACKETS = 2 * MAX_ITERATIONS + 1

_PRODUCTIONS = (*RULES, *AXIOMS)
_TABLE = np.zeros((len(_PRODUCTIONS), max(map(len, _PRODUCTIONS))), np.uint8)
for _row, _production in zip(_TABLE, _PRODUCTIONS, strict=True):
    _row[: len(_production)] = np.frombuffer(_production.encode(), np.uint8)
_LENGTHS = np.array([len(production) for production in _PRODUCTIONS])
_SETS = np.array(RULE_SETS)
#: Symbols as they are written, in ASCII.
FORWARD, LEFT, RIGHT, OPEN, CLOSE = (np.uint8(ord(symbol)) for symbol in "F+-[]")

_GENERATIONS = np.uint64(200)


def growth(iterations: int, axioms: set[int], rules: set[int]) -> tuple[int, int]:
    """Upper bounds of the segments and of the symbols of one tree after `iterations` iterations.

    axioms and rules: positions in AXIOMS and RULES of those that can be drawn.
    """
    segments, symbols = max(AXIOMS[i].count("F") for i in axioms), max(len(AXIOMS[i]) for i in axioms)
    for _ in range(iterations):
        symbols += segments * max(len(RULES[i]) - 1 for i in rules)
        segments *= max(RULES[i].count("F") for i in rules)
    return segments, symbols


@njit
def expand(tree_key, axiom, rule_set, first, second, iterations, levels, symbols):
    """Write the sentence after `iterations` rewritings of an axiom into symbols (uint8[≥ bound], ASCII); returns its length.

    The j-th F of generation g is rewritten by draw j of fold(tree_key, 200 + g): by the set's first rule if that is below
    `first`, by its second below `second`, else by its third. levels: int64[3, MAX_ITERATIONS + 1], workspace.
    """
    row, position, ordinal = levels[0], levels[1], levels[2]
    ordinal[:] = 0
    row[0], position[0] = len(RULES) + axiom, 0
    depth = written = 0
    while depth >= 0:
        if position[depth] == _LENGTHS[row[depth]]:
            depth -= 1
            continue
        symbol = _TABLE[row[depth], position[depth]]
        position[depth] += 1
        if symbol == FORWARD and depth < iterations:
            u = uniform64(fold64(tree_key, _GENERATIONS + np.uint64(depth)), np.uint64(ordinal[depth]))
            ordinal[depth] += 1
            depth += 1
            row[depth] = _SETS[rule_set, 0 if u < first else 1 if u < second else 2]
            position[depth] = 0
        else:
            symbols[written] = symbol
            written += 1
    return written
