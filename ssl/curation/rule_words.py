"""The rules in words: what each of them means, and what its value is."""

from typing import NamedTuple


class RuleWords(NamedTuple):
    """What a rule means, what its value is, and whether low values are the worst."""

    words: str
    value_name: str
    ascending: bool


RULES = {
    "taken_down": RuleWords("taken down, or a copy of an image that was", "", True),
    "marked": RuleWords("marked by hand, or a copy of an image that is marked drop", "", True),
    "unreadable": RuleWords("cannot be read", "", True),
    "truncated": RuleWords("ends too early, or is damaged inside", "", True),
    "not_an_image": RuleWords("not an image", "", True),
    "bomb": RuleWords("takes more memory or time to decode than any photograph", "", True),
    "tiny": RuleWords("too small", "pixels of the shorter side", True),
    "aspect": RuleWords("too long or too wide", "longer by shorter side", False),
    "flat": RuleWords("one color, or nearly", "standard deviation of luma, of 255", True),
    "dark": RuleWords("nearly black everywhere", "luma that 99 % of the pixels are below", True),
    "light": RuleWords("nearly white everywhere", "luma that 95 % of the pixels are above", False),
    "blurred": RuleWords("without detail", "sharpness", True),
    "page": RuleWords("looks like a page of text", "score", False),
    "screenshot": RuleWords("looks drawn by a program", "score", False),
    "animated": RuleWords("an animation, of which the first frame is used", "frames", False),
    "wrong_extension": RuleWords("an image of another format than its name says", "", True),
    "license": RuleWords("a license that the policy does not allow, or none that is known", "", True),
    "optout": RuleWords("a reservation against training in the file", "", True),
    "people": RuleWords("shows people, by a detector", "score", False),
    "exact_duplicate": RuleWords("the same pixels as another image", "", True),
    "near_duplicate": RuleWords(
        "re-encoded or resized copy of another image", "difference at 16 x 16 pixels, of 255", False
    ),
    "leak": RuleWords("also in an evaluation set", "difference at 16 x 16 pixels, of 255", True),
    "similar": RuleWords(
        "features nearly those of another image: a crop, or a picture of the same moment", "cosine", True
    ),
    "filter": RuleWords("unlike what was marked keep", "probability of keep", True),
    "atypical": RuleWords("far from all other images", "typicality", True),
    "semdedup": RuleWords("too similar to a kept image of its cluster (SemDeDup)", "", True),
    "balance": RuleWords("not drawn in the sample that is balanced over the clusters", "", True),
    "diversity": RuleWords("not among the images that are the farthest from each other", "", True),
    "caps": RuleWords("more than the cap of an author, an album or a cluster", "", True),
}
