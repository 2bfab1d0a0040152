"""The grammar against plain rewriting of strings, with the same draws, and the bounds of its growth."""

import itertools

import numpy as np
import pytest

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.generators.lsystem.grammar import AXIOMS, MAX_BRACKETS, MAX_ITERATIONS, RULE_SETS, RULES, expand, growth


def sentence(tree, axiom, rule_set, first, second, iterations):
    bound = growth(iterations, {axiom}, set(RULE_SETS[rule_set]))[1]
    symbols, levels = np.full(bound, ord("?"), np.uint8), np.empty((3, MAX_ITERATIONS + 1), np.int64)
    written = expand(np.uint64(tree), axiom, rule_set, first, second, iterations, levels, symbols)
    assert (symbols[written:] == ord("?")).all()
    return symbols[:written].tobytes().decode()


def rewritten(tree, axiom, rule_set, first, second, iterations):
    """Generation by generation, every F by an independent draw."""
    text = AXIOMS[axiom]
    for generation in range(iterations):
        draws = iter(uniform(fold(tree, 200 + generation), text.count("F"))[0])
        parts = []
        for symbol in text:
            if symbol == "F":
                u = next(draws)
                symbol = RULES[RULE_SETS[rule_set][0 if u < first else 1 if u < second else 2]]
            parts.append(symbol)
        text = "".join(parts)
    return text


@pytest.mark.parametrize(("axiom", "rule_set", "iterations"), itertools.product((0, 1), (0, 1), (0, 1, 2, 3)))
def test_the_stack_matches_string_rewriting(axiom, rule_set, iterations):
    seen = set()
    for seed in range(20):
        arguments = key("tree", seed), axiom, rule_set, 0.5, 0.8, iterations
        seen.add(sentence(*arguments))
        assert sentence(*arguments) == rewritten(*arguments)
    if iterations == 0:
        assert seen == {AXIOMS[axiom]}
    else:
        assert len(seen) >= 3


def test_rules_are_chosen_as_often_as_their_weights_say():
    """Over 3000 single rewritings; the third rule, which the published program never reaches, among them."""
    for rule_set, names in enumerate(RULE_SETS):
        texts = [sentence(key("often", seed), 0, rule_set, 0.5, 0.8, 1) for seed in range(3000)]
        shares = [texts.count(RULES[name]) / 3000 for name in names]
        np.testing.assert_allclose(shares, (0.5, 0.3, 0.2), atol=0.04)  # four standard errors
        assert sum(shares) == pytest.approx(1.0)
    published = {sentence(key("often", seed), 0, 0, 0.6, 1.0, 1) for seed in range(300)}
    assert published == {RULES[0], RULES[1]}


@pytest.mark.parametrize("iterations", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("axioms", [{0}, {0, 1}])
@pytest.mark.parametrize("rules", [{0}, {1}, {0, 1, 2}, {3, 2}])
def test_growth_is_bounded_by_the_longest_rule(iterations, axioms, rules):
    axiom = AXIOMS[max(axioms)]
    greediest = max((RULES[i] for i in rules), key=lambda rule: rule.count("F"))
    for _ in range(iterations):
        axiom = axiom.replace("F", greediest)
    segments, symbols = growth(iterations, axioms, rules)
    assert segments == axiom.count("F")
    assert len(axiom) <= symbols <= 2 * len(axiom)


def test_brackets_close_and_are_nested_no_deeper_than_the_stack():
    text = max(AXIOMS, key=len)
    for _ in range(3):
        text = text.replace("F", RULES[1])
    depth = np.cumsum([(symbol == "[") - (symbol == "]") for symbol in text])
    assert depth[-1] == 0
    assert depth.min() == 0
    assert depth.max() == 2 * 3 + 1
    assert MAX_BRACKETS == 2 * MAX_ITERATIONS + 1
