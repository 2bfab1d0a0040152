"""Which files are images, masks and fields of view: by patterns of paths, or in the layout of a published data set.

| layout | images | masks of annotator 1; 2 | test images |
|---|---|---|---|
| drive | training/images/21_training.tif | 1st_manual/21_manual1.gif; test/2nd_manual/01_manual2.gif | test/images/ |
| stare | stare-images/im0001.ppm, or images/, or no folders | labels-ah/im0001.ah.ppm; labels-vk/im0001.vk.ppm | a share |
| chase_db1 | Image_01L.jpg, also in images/ | Image_01L_1stHO.png; Image_01L_2ndHO.png | the last 8, 11L to 14R |
| cfd | image/001.jpg | groundTruth/001.mat, or seg/001.png | a share |
| xcad | train/, its images/ or img/, without masks | test/masks/ or gt/ | test/images/ or img/ |
| cracktree | X/ or X_img/, for one X of `CRACKTREE_SETS` | X_gt/gt/ or X_gt/ | a share |
| pairs | images/ or img/ | masks/, labels/, annotations/ or gt/ | those of a folder test or val, else a share |

Fields of view are in mask/21_training_mask.gif beside the images of DRIVE, and in Stone331_mask/. A share: `masks.names_in_test`.
The layouts were taken from descriptions and from programs that read these sets; none was tried on the set itself.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from wildfern.ssl.data.base import DataError, EmptySplit, Split
from wildfern.ssl.data.file_names import is_hidden
from wildfern.ssl.data.folder_walk import is_folder
from wildfern.ssl.data.image_file import EXTENSIONS
from wildfern.ssl.data.splits import ROLES, role_of

LayoutName = Literal["auto", "pairs", "drive", "stare", "chase_db1", "cfd", "xcad", "cracktree"]
CRACKTREE_SETS = ("CrackTree260", "CRKWH100", "CrackLS315", "Stone331")  # of DeepCrack (Zou et al., 2019)
_NAME, _ANY = "{name}", ".*"
_ANY_EXTENSION = rf"(?i:{'|'.join(map(re.escape, EXTENSIONS))})(?i:\.gz)?"


class Pair(NamedTuple):
    """An image with its mask and, if it has one, its field of view: paths with "/", relative to the root."""

    image: str
    mask: str
    region: str | None


@dataclass(frozen=True)
class Form:
    """Patterns of one split: of images, of the masks of each annotator, and of fields of view."""

    images: str
    masks: tuple[str, ...]
    regions: str | None = None

    def below(self, folder: str) -> "Form":
        """The same patterns below `folder`."""
        masks = tuple(f"{folder}/{mask}" for mask in self.masks)
        return Form(f"{folder}/{self.images}", masks, self.regions and f"{folder}/{self.regions}")


@dataclass(frozen=True)
class Layout:
    """The forms that each split may have, the first that fits is read. Without `test`, `test_names` or a share are test.

    `unlabeled`: the set has images without masks, which are left out. `single`: two forms that fit are refused. `hint` is what to
    do where a split has no masks.
    """

    train: tuple[Form, ...]
    test: tuple[Form, ...] = ()
    test_names: frozenset[str] = frozenset()
    unlabeled: bool = False
    single: bool = False
    hint: str = ""


_DRIVE_MASKS = ("1st_manual/{name}_manual1.*", "2nd_manual/{name}_manual2.*")
_DRIVE_TRAIN = Form("images/{name}_training.*", _DRIVE_MASKS[:1], "mask/{name}_training_mask.*").below("training")
_DRIVE_TEST = Form("images/{name}_test.*", _DRIVE_MASKS, "mask/{name}_test_mask.*").below("test")
_STARE_MASKS = ("labels-ah/{name}.ah.*", "labels-vk/{name}.vk.*")
_STARE = tuple(Form(images, _STARE_MASKS) for images in ("stare-images/{name}.*", "images/{name}.*"))
_STARE_FLAT = Form("{name}.*", ("{name}.ah.*", "{name}.vk.*"))
_CHASE = Form("Image_{name}.jpg", ("Image_{name}_1stHO.png", "Image_{name}_2ndHO.png"))
_XCAD = (Form("images/{name}.*", ("masks/{name}.*",)), Form("img/{name}.*", ("gt/{name}.*",)))
_CRACKTREE = tuple(
    Form(f"{images}/{{name}}.*", (f"{masks}/{{name}}.*",), f"{one}_mask/{{name}}.*" if one == "Stone331" else None)
    for one in CRACKTREE_SETS
    for images in (one, f"{one}_img")
    for masks in (f"{one}_gt/gt", f"{one}_gt")
)
_PAIRS = tuple(
    Form(f"{images}/{{name}}.*", (f"{masks}/{{name}}.*",))
    for images in ("images", "img")
    for masks in ("masks", "labels", "annotations", "gt")
)
_PAIRS_HINT = (
    "; where names differ, give patterns: images: 'images/{name}.*' and masks: 'masks/{name}_mask.*', for example"
)
LAYOUTS: dict[str, Layout] = {
    "drive": Layout(
        (_DRIVE_TRAIN,),
        (_DRIVE_TEST,),
        hint="; some copies of DRIVE lack the masks of test: split its train images then, with images: "
        f"'{_DRIVE_TRAIN.images}', masks: '{_DRIVE_TRAIN.masks[0]}' and regions: '{_DRIVE_TRAIN.regions}'",
    ),
    "stare": Layout((*_STARE, _STARE_FLAT), unlabeled=True),
    "chase_db1": Layout(
        (_CHASE, _CHASE.below("images")),
        test_names=frozenset(f"{child}{eye}" for child in range(11, 15) for eye in "LR"),
    ),
    "cfd": Layout(
        tuple(Form("image/{name}.jpg", (masks,)) for masks in ("groundTruth/{name}.mat", "seg/{name}.*")),
        unlabeled=True,
    ),
    "xcad": Layout(
        tuple(form.below("train") for form in (*_XCAD, Form("{name}.*", ("masks/{name}.*",)))),
        tuple(form.below("test") for form in _XCAD),
        unlabeled=True,
    ),
    "cracktree": Layout(_CRACKTREE, single=True),
}
_AUTO = ("drive", "stare", "chase_db1", "cfd", "pairs", "xcad", "cracktree")  # pairs before xcad: train may have masks


class FoundPairs(NamedTuple):
    """Pairs by their names and in their order, and notes for the user.

    They are those of a split, in `folder`, or else all there are: then `test_names` are test or, without these, a share is.
    """

    layout: str
    pairs: dict[str, Pair]
    notes: list[str]
    folder: str | None
    test_names: frozenset[str]


class _Files(NamedTuple):
    """What matches one form: the files by name; of masks by annotator; and messages about names with two files."""

    form: Form
    images: dict[str, str]
    masks: tuple[dict[str, str], ...]
    regions: dict[str, str]
    clashes: list[str]

    @property
    def fits(self) -> bool:
        return bool(self.images) and any(self.masks)


def find_pairs(
    root: Path, split: Split, layout: LayoutName = "auto", given: Form | None = None, annotator: int = 1
) -> FoundPairs:
    """The images of a split, or of both, with their masks: in a layout, or by the patterns `given` of layout pairs.

    Patterns are those of `matching`, relative to `root`, or to its folders of splits if they match in both. Raises DataError for
    a folder in none of the layouts, and for images without a mask.
    """
    if given is not None and layout not in ("auto", "pairs"):
        raise DataError(f"images, masks and regions are patterns of layout pairs; leave them out for layout {layout}")
    names: tuple[str, ...] = (layout,) if layout != "auto" else ("pairs",) if given is not None else _AUTO
    for name in names:
        known = _pairs(root, given) if name == "pairs" else LAYOUTS[name]
        train, test = (_best(root, forms, known.single) for forms in (known.train, known.test))
        if (train and train.fits) or (test and test.fits):
            files = test if known.test and split == "test" else train
            if files is None:
                pattern = (known.test if split == "test" else known.train)[0].images
                raise EmptySplit(f"{root} has no {split} images: no file matches {pattern}{known.hint}")
            what = f"the {split} images" if known.test else "the images"
            pairs, notes = _joined(root, f"{what} of {root}", known, files, annotator)
            used = [one.form.images.partition("/")[0] for one in (train, test) if one is not None]
            if known.test and (over := [entry.name for entry in _split_folders(root) if entry.name not in used]):
                notes.append(f"{root}: passed over {', '.join(over)}")
            folder = files.form.images.partition("/")[0] if known.test else None
            return FoundPairs(name, pairs, notes, folder, known.test_names)
    raise DataError(_unknown(root, names, given))


def matching(root: Path, pattern: str, clashes: list[str]) -> dict[str, str]:
    """The files below `root` that a pattern matches, by their names: paths with "/", relative to `root`.

    {name} is any text without "/", the same one wherever it is; .* at the end is any extension of an image, in any case, also
    packed (.ppm.gz). Hidden files are left out. Of two files with one name a packed one is passed over; about others `clashes`
    gets a message.
    """
    found: dict[str, str] = {}
    for name, path in _walk(str(root), "", pattern.split("/"), None):
        other = found.setdefault(name, path)
        if other + ".gz" not in (path, path + ".gz"):
            clashes.append(f"{root} has {other} and {path}, both for {pattern}: remove one, or write the extension")
    return found


def _walk(root: str, above: str, parts: list[str], name: str | None) -> Iterator[tuple[str, str]]:
    part, rest = parts[0], parts[1:]
    if rest and _NAME not in part:
        yield from _walk(root, f"{above}{part}/", rest, name)
        return
    expression = _expression(part, name, last=not rest)
    for entry in _listing(os.path.join(root, above)):
        match = expression.fullmatch(entry.name)
        if match is not None and is_folder(entry) == bool(rest):
            text = match.groupdict().get("name", name)
            if rest:
                yield from _walk(root, f"{above}{entry.name}/", rest, text)
            elif text is not None:
                yield text, above + entry.name


def _expression(part: str, name: str | None, last: bool) -> re.Pattern[str]:
    """What matches one part of a path; `name` is the text of {name} if a part before it had one."""
    body, end = (part.removesuffix(_ANY), _ANY_EXTENSION) if last and part.endswith(_ANY) else (part, "")
    first, *others = map(re.escape, body.split(_NAME))
    again = "(?P=name)" if name is None else re.escape(name)
    texts = ["(?P<name>.+)" if name is None and number == 0 else again for number in range(len(others))]
    return re.compile(
        "".join([first, *(text + other for text, other in zip(texts, others, strict=True)), end]), re.DOTALL
    )


def _listing(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder, in a fixed order; nothing if it is missing."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not is_hidden(e.name)), key=lambda e: os.fsencode(e.name))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"{folder} cannot be opened: {error.strerror}") from error


def _best(root: Path, forms: tuple[Form, ...], single: bool) -> _Files | None:
    """What matches the first form with images and masks, or else the first one with images."""
    found = [files for form in forms if (files := _read(root, form)).images]
    fitting = [files for files in found if files.fits]
    if single and len(fitting) > 1:
        several = " and ".join(f"{files.form.images} with {files.form.masks[0]}" for files in fitting[:2])
        raise DataError(f"{root} has {several}: choose one by the patterns images and masks")
    return next(iter([*fitting, *found]), None)


def _read(root: Path, form: Form) -> _Files:
    clashes: list[str] = []
    masks = tuple(matching(root, mask, clashes) for mask in form.masks)
    regions = {} if form.regions is None else matching(root, form.regions, clashes)
    taken = {path for part in (*masks, regions) for path in part.values()}  # a mask beside its image is no image
    images = {name: path for name, path in matching(root, form.images, clashes).items() if path not in taken}
    return _Files(form, images, masks, regions, clashes)


def _split_folders(root: Path) -> list[os.DirEntry[str]]:
    return [entry for entry in _listing(str(root)) if role_of(entry.name) is not None and is_folder(entry)]


def _pairs(root: Path, given: Form | None) -> Layout:
    """The layout of equal names, in folders of splits if train and test or val have images and masks."""
    forms, hint = (_PAIRS, _PAIRS_HINT) if given is None else ((given,), "")
    roles = {role_of(entry.name): entry.name for entry in reversed(_split_folders(root))}
    folders = [next((roles[role] for role in ROLES[split] if role in roles), "") for split in ("train", "test")]
    train, test = (tuple(form.below(folder) for form in forms) if folder else () for folder in folders)
    if all((files := _best(root, inside, False)) is not None and files.fits for inside in (train, test)):
        return Layout(train, test, single=True, hint=hint)
    return Layout(forms, single=True, hint=hint)


def _joined(root: Path, where: str, layout: Layout, files: _Files, annotator: int) -> tuple[dict[str, Pair], list[str]]:
    """The pairs of a form by their names, and notes."""
    if not 1 <= annotator <= len(files.masks):
        whose = f"{len(files.masks)} annotator{'s' * (len(files.masks) > 1)}"
        raise DataError(f"annotator: {annotator}, but {where} have masks of {whose} in this layout")
    if files.clashes:
        raise DataError(files.clashes[0])
    masks, pattern = files.masks[annotator - 1], files.form.masks[annotator - 1]
    labeled = sorted(files.images.keys() & masks.keys(), key=os.fsencode)
    without = sorted(files.images.keys() - masks.keys(), key=os.fsencode)
    if without and not (labeled and layout.unlabeled):
        lost = f"{root}/{pattern.replace(_NAME, without[0])} is missing: the mask of {files.images[without[0]]}"
        lost = lost if labeled else f"{where} have no masks: {lost}"
        raise DataError(f"{lost}{layout.hint}; folder:PATH reads images without masks")
    notes = []
    if without:
        notes.append(f"{root}: images without a mask, which are left out: {len(without):,}; folder:PATH reads them")
    if more := len(masks.keys() - files.images.keys()):
        notes.append(f"{root}: masks without an image, which are left out: {more:,}")
    if files.form.regions is not None and not files.regions.keys() & set(labeled):
        notes.append(f"{root}: no fields of view: no file of these images matches {files.form.regions}")
    return {one: Pair(files.images[one], masks[one], files.regions.get(one)) for one in labeled}, notes


def _unknown(root: Path, names: tuple[str, ...], given: Form | None) -> str:
    """What was looked for, and what to write."""
    there = ", ".join(entry.name for entry in _listing(str(root))[:8]) or "no files"
    if given is not None:
        return f"{root}: no files match images: {given.images} and masks: {given.masks[0]}; it has {there}"
    forms = {name: _PAIRS[0] if name == "pairs" else (LAYOUTS[name].test or LAYOUTS[name].train)[0] for name in names}
    listed = "; ".join(f"{name}: {form.images} with {form.masks[0]}" for name, form in forms.items())
    return (
        f"{root} has {there}, and no images with masks in a layout that is known ({listed}). Give patterns of its paths, for "
        "example images: 'images/{name}.png' and masks: 'masks/{name}_mask.png'"
    )
