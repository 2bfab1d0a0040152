"""What to do with which images: one rule for each reason, with its threshold. Each policy of recipes/policies is one of these."""

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

Action = Literal["keep", "review", "reject"]


class _Section:
    """Checked by pydantic where a policy is read from a file: unknown keys are errors, and values are not converted."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


@dataclass(frozen=True, kw_only=True)
class Rule(_Section):
    """keep: only measured. review: kept aside until it is marked by hand. reject: left out."""

    action: Action = "keep"


@dataclass(frozen=True, kw_only=True)
class Tiny(Rule):
    min_side: int = 32  # pixels of the shorter side


@dataclass(frozen=True, kw_only=True)
class Aspect(Rule):
    most: float = 4.0  # longer by shorter side


@dataclass(frozen=True, kw_only=True)
class Flat(Rule):
    contrast: float = 4.0  # standard deviation of luma, of 255


@dataclass(frozen=True, kw_only=True)
class Dark(Rule):
    luma: float = 40.0  # 99 % of the pixels have a lower luma


@dataclass(frozen=True, kw_only=True)
class Light(Rule):
    luma: float = 225.0  # 95 % of the pixels have a higher luma


@dataclass(frozen=True, kw_only=True)
class Blurred(Rule):
    sharpness: float = 0.02  # between neighboring pixels, relative to the contrast of the image


@dataclass(frozen=True, kw_only=True)
class Looks(Rule):
    score: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Duplicates(Rule):
    """The same image with other bytes: resized, re-encoded. The best copy is kept.

    - bits: distance of perceptual hashes, of 64; at most 8. difference: of the images at 16 x 16 pixels, mean of 255.
    """

    bits: int = 6
    difference: float = 8.0


@dataclass(frozen=True, kw_only=True)
class Similar(Rule):
    """Images whose features are nearly the same, such as crops. Needs features.

    - similarity: cosine.
    """

    similarity: float = 0.97


@dataclass(frozen=True, kw_only=True)
class Leak(Rule):
    """Images that are also in an evaluation set, found as duplicates are.

    - against: names of data sources, both splits of which are compared.
    """

    against: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class License(Rule):
    """SPDX ids, * for any version: CC-BY-* is not CC-BY-NC-4.0. `action` is for other licenses.

    - allow: empty: any license, also none. unknown: for images whose license is not known.
    """

    allow: tuple[str, ...] = ()
    unknown: Action = "review"


@dataclass(frozen=True, kw_only=True)
class People(Rule):
    """Faces or persons, by the score of a detector.

    - detector: "centerface", or the ONNX file of a person detector; null: not checked.
    - reject, review: scores from which an image is rejected, or reviewed. `action: keep` only measures.
    - blur: blur the boxes where the images are read, instead of rejecting.
    """

    detector: str | None = None
    reject: float = 0.5
    review: float = 0.2
    blur: bool = False


@dataclass(frozen=True, kw_only=True)
class Caps(_Section):
    """How many images of one author, album and cluster are kept at most, drawn by a hash of their content; null: all."""

    author: int | None = None
    album: int | None = None
    cluster: int | None = None


@dataclass(frozen=True, kw_only=True)
class Features(_Section):
    """The network whose features tell similar images, clusters and the rest.

    - backbone: a run folder, or the name of a network of timm; null: no features. weights: of such a network, as for
      `wildfern evaluate`. size: pixels of the side that it sees; null: its own.
    """

    backbone: str | None = None
    weights: str | None = None
    size: int | None = None


@dataclass(frozen=True, kw_only=True)
class Selection(_Section):
    """Choices among the images that passed the rules, in this order; all of them need features.

    - filter: least probability of being marked keep, learned from the marks made by hand (at least 10 of either kind).
    - atypical: share of the images with the farthest neighbors to leave out, such as 0.01.
    - clusters: sizes of the levels of hierarchical k-means, for example [1000, 100]; needed by epsilon, balance and caps.cluster.
    - epsilon: of SemDeDup: in each cluster, images with a cosine above 1 - epsilon to one farther out are left out.
    - balance: images to keep, drawn as evenly as possible from the clusters of all levels.
    - diversity: images to keep, each the farthest from those before it (k-center greedy).
    """

    filter: float | None = None
    atypical: float | None = None
    clusters: tuple[int, ...] = ()
    epsilon: float | None = None
    balance: int | None = None
    diversity: int | None = None


@dataclass(frozen=True, kw_only=True)
class Policy(_Section):
    """Rules in the order in which they apply; the strictest action decides. `name` is the policy's own."""

    name: str = "default"
    unreadable: Rule = field(default_factory=lambda: Rule(action="reject"))
    truncated: Rule = field(default_factory=lambda: Rule(action="reject"))
    not_an_image: Rule = field(default_factory=lambda: Rule(action="reject"))
    bomb: Rule = field(default_factory=lambda: Rule(action="reject"))
    tiny: Tiny = field(default_factory=lambda: Tiny(action="reject"))
    aspect: Aspect = field(default_factory=lambda: Aspect(action="reject"))
    flat: Flat = field(default_factory=lambda: Flat(action="reject"))
    dark: Dark = field(default_factory=lambda: Dark(action="review"))
    light: Light = field(default_factory=lambda: Light(action="review"))
    blurred: Blurred = field(default_factory=lambda: Blurred(action="review"))
    page: Looks = field(default_factory=lambda: Looks(action="review"))
    screenshot: Looks = field(default_factory=lambda: Looks(action="review", score=0.6))
    animated: Rule = field(default_factory=Rule)
    wrong_extension: Rule = field(default_factory=Rule)
    license: License = field(default_factory=lambda: License(action="reject"))
    optout: Rule = field(default_factory=lambda: Rule(action="reject"))
    people: People = field(default_factory=lambda: People(action="reject"))
    exact_duplicate: Rule = field(default_factory=lambda: Rule(action="reject"))
    near_duplicate: Duplicates = field(default_factory=lambda: Duplicates(action="reject"))
    similar: Similar = field(default_factory=lambda: Similar(action="review"))
    leak: Leak = field(default_factory=lambda: Leak(action="reject"))
    features: Features = field(default_factory=Features)
    selection: Selection = field(default_factory=Selection)
    caps: Caps = field(default_factory=Caps)


def as_tree(policy: Policy) -> dict[str, Any]:
    """A policy as plain values: mappings, lists, texts and numbers."""
    return {key: _plain(value) for key, value in asdict(policy).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value
