"""Every rule has words."""

from dataclasses import fields

from wildfern.ssl.curation.decide import MARKED, TAKEN_DOWN
from wildfern.ssl.curation.policy import Policy, Rule, Selection
from wildfern.ssl.curation.rule_words import RULES

OF_POLICY = {one.name for one in fields(Policy) if isinstance(getattr(Policy(), one.name), Rule)}
# What `select` calls its steps; clusters are no reason by themselves.
OF_SELECTION = {"epsilon": "semdedup", "clusters": None}


def test_every_rule_of_a_policy_and_every_step_of_a_selection_has_words_and_nothing_else_has():
    steps = {OF_SELECTION.get(one.name, one.name) for one in fields(Selection)} - {None}
    assert set(RULES) == OF_POLICY | steps | {"caps", MARKED, TAKEN_DOWN}


def test_the_words_fit_the_page():
    for name, rule in RULES.items():
        assert rule.words, name
        assert rule.words == rule.words.strip(), name
        assert not rule.words.endswith("."), name  # they go before "· all 3 shown"
    assert len({rule.words for rule in RULES.values()}) == len(RULES)
