"""Policies of curation: bundled ones, files, changes, and their errors."""

from dataclasses import asdict

import pytest

from wildfern.launch.policies import list_policies, policy_of, policy_text, read_policy
from wildfern.recipes import RecipeErrors, read_yaml
from wildfern.ssl.curation.policy import Policy, as_tree


def messages(error: pytest.ExceptionInfo) -> list[str]:
    return [str(problem) for problem in error.value.problems]


def test_the_default_policy_is_that_of_the_code_and_its_file_names_every_key():
    assert read_policy() == Policy()
    written, problems = read_yaml(policy_text("default"), "default.yaml")
    assert not problems
    assert {"name": "default"} | written == as_tree(Policy())


def test_the_policies_are_listed_with_what_they_are_for():
    found = list_policies()
    assert set(found) == {"default", "pass"}
    assert "CC BY" in found["pass"]


def test_pass_allows_every_version_of_cc_by_and_caps_authors():
    policy = read_policy("pass")
    assert policy.license.allow == ("CC-BY-*", "CC0-1.0")
    assert policy.license.unknown == "reject"
    assert policy.caps.author == 80
    assert policy.people.detector == "centerface"
    assert policy.tiny == Policy().tiny  # what it leaves out is as in the default


def test_a_file_and_changes(tmp_path):
    file = tmp_path / "strict.yaml"
    file.write_text("# mine\ntiny: {action: reject, min_side: 100}\n")
    policy = read_policy(file, ["tiny.min_side=64", "caps.author=3", "license.allow=[CC0-1.0]"])
    assert (policy.name, policy.tiny.min_side, policy.caps.author, policy.license.allow) == (
        "strict",
        64,
        3,
        ("CC0-1.0",),
    )


def test_a_section_with_some_keys_keeps_the_others():
    assert read_policy("default", ["tiny.min_side=64"]).tiny.action == "reject"


def test_a_policy_survives_its_manifest():
    policy = read_policy("pass", ["selection.clusters=[100,10]", "features.backbone=resnet18", "selection.balance=50"])
    assert policy_of(as_tree(policy), "manifest") == policy


def test_all_errors_of_a_policy_are_reported_together():
    with pytest.raises(RecipeErrors) as error:
        read_policy(
            "default", ["tiny.min_sid=4", "flat.contrast=much", "page.action=rejct", "caps=3", "nonsense=1", "odd"]
        )
    found = "\n".join(messages(error))
    assert "command line: tiny.min_sid: unknown key; did you mean min_side?" in found
    assert 'flat.contrast: must be a number, got "much"' in found
    assert "did you mean reject?" in found
    assert "caps: must be" in found
    assert "nonsense: unknown key" in found
    assert "--set needs key=value" in found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["license.allow=[CC-BY-4]"], "license.allow.0"),
        (["license.allow=[CC-BX-4.0]"], "CC-BX-4.0"),
        (["near_duplicate.bits=9"], "near_duplicate.bits: must be 0 to 8, got 9"),
        (["people.review=0.9"], "review must be at most reject"),
        (["selection.balance=10"], "needs features"),
        (["features.backbone=resnet18", "selection.epsilon=0.1"], "needs selection.clusters"),
        (["caps.cluster=3"], "needs selection.clusters"),
        (["caps.author=0"], "caps.author: must be 1 or more, got 0"),
        (["similar.similarity=0"], "similar.similarity: must be above 0"),
        (["selection.clusters=[0]"], "selection.clusters: must be 1 or more"),
        (["features.backbone=x", "selection.clusters=[10,10]"], "selection.clusters: must decrease"),
        (["people.blur=true"], "people.blur: needs people.detector"),
    ],
)
def test_what_is_impossible_or_does_not_fit_together(changes, message):
    with pytest.raises(RecipeErrors) as error:
        read_policy("default", changes)
    assert message in "\n".join(messages(error))


@pytest.mark.parametrize(
    ("name", "message"),
    [("pas", "did you mean pass?"), ("missing.yaml", "No such file"), ("other", "there is no policy 'other'")],
)
def test_a_policy_that_is_not_there(name, message):
    with pytest.raises(RecipeErrors) as error:
        read_policy(name)
    assert message in messages(error)[0]


def test_a_file_that_is_no_policy(tmp_path):
    file = tmp_path / "list.yaml"
    file.write_text("- tiny\n")
    with pytest.raises(RecipeErrors, match="must be a mapping"):
        read_policy(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeErrors, match="cannot be read"):
        read_policy(file)


def test_every_key_has_a_plain_value():
    """So that a manifest can record it as JSON."""
    kinds = (str, int, float, bool, type(None), list, dict)

    def check(value):
        assert isinstance(value, kinds)
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(inner)

    check(as_tree(Policy()))
    assert asdict(Policy())["license"]["allow"] == ()
