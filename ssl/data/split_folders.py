"""Which sub-folders of a folder are its train and test split: recognized by name, or named by the user."""

import os
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.file_names import is_hidden, is_image
from wildfern.ssl.data.folder_walk import is_folder
from wildfern.ssl.data.paths import existing_folder
from wildfern.ssl.data.splits import Role, role_of, split_pair

_ANNOTATIONS = {"labels", "label", "annotations", "annotation", "masks", "segmentations", "bboxes"}
_IMAGES = {"images", "image", "imgs", "jpegimages"}
_LOOKED_INTO = 8  # folders of a level that are searched for splits inside
_DEEPEST = 3


@dataclass(frozen=True)
class SplitFolder:
    """The images under `root`, at paths that start with folders that match `pattern`, except those under `without`."""

    root: Path
    words: str = ""  # "folder valid", "" for the whole folder given
    pattern: tuple[str, ...] = ()
    without: tuple[str, ...] = ()  # a folder below root, by its parts

    def has(self, name: str) -> bool:
        """Whether the image at this path, relative to `root`, belongs to the split."""
        parts = tuple(name.split("/")[:-1])
        if self.without and parts[: len(self.without)] == self.without:
            return False
        return len(parts) >= len(self.pattern) and all(map(fnmatchcase, parts, self.pattern))

    def classes(self) -> list[str]:
        """Names of the first level of folders."""
        names = [e.name for e in os.scandir(self.root) if is_folder(e) and not is_hidden(e.name)]
        return sorted(name for name in names if (name,) != self.without)


@dataclass
class SplitFolders:
    """`test` is None where there is none; `train` is None where only the test folder was named. `notes` are for the user."""

    train: SplitFolder | None
    test: SplitFolder | None
    notes: list[str] = field(default_factory=list)


def split_folders(given: Path, train_folder: str | None = None, test_folder: str | None = None) -> SplitFolders:
    """The folders of both splits; `train` is `given` itself where there are no split folders.

    Recognized, in any case: train or training for `train`; test, testing or eval, else valid, validation, val or dev for `test`;
    also inside of the only sub-folder, or inside of `images` beside `labels`. `train_folder` and `test_folder` name a folder
    below `given` instead, or several with * for a name ("*/train"). "." is `given` without the folder of the other split; as
    `train_folder` it turns recognition off. Raises DataError for layouts that have several meanings.
    """
    train = None if train_folder is None else _named(given, train_folder, "train_folder")
    test = None if test_folder is None else _named(given, test_folder, "test_folder")
    notes: list[str] = []
    if train is not None and train.root == given and not train.pattern:
        if test is None and (splits := _Level.of(given).splits):
            notes = [f"{given}: all images are train images, also those of {_folders(splits)}"]
    elif train is None or test is None:
        level = _level_of_splits(given)
        if not level.roles and train is None and test is None:
            _check_no_splits(given, level)
            return SplitFolders(SplitFolder(given), None)
        if train is None:
            train = _recognized_train(given, level, test)
        if test is None:
            test = _recognized_test(given, level, train)
        notes = _notes(given, level, train, test)
    if train is not None and test is not None:
        if (train.root, train.pattern) == (test.root, test.pattern):
            raise DataError(f"{given}: train_folder and test_folder are the same folder, {train.words}")
        train, test = _without(train, test), _without(test, train)
    return SplitFolders(train, test, notes)


def _named(given: Path, text: str, key: str) -> SplitFolder:
    words = "the folder itself" if text in (".", "./") else f"folder {text.rstrip('/')}"
    if "*" not in text or (given / text).is_dir():
        folder = existing_folder(given / text)
        return SplitFolder(folder if folder == given else _inside(folder), words)
    parts = Path(text).parts
    fixed = next(i for i, part in enumerate(parts) if "*" in part)
    found = SplitFolder(existing_folder(given.joinpath(*parts[:fixed])), words, parts[fixed:])
    if not any(path.is_dir() for path in found.root.glob("/".join(found.pattern))):
        raise DataError(f"{key}: no folder {text} in {given}")
    return found


def _without(one: SplitFolder, other: SplitFolder) -> SplitFolder:
    """`one` without the folder of the other split, if that is inside of it."""
    if other.pattern or one.pattern or one.root not in other.root.parents:
        return one
    return SplitFolder(one.root, one.words, one.pattern, other.root.relative_to(one.root).parts)


@dataclass
class _Level:
    """One folder: its sub-folders by role, the other sub-folders, and whether images are directly in it."""

    path: Path
    roles: dict[Role, list[str]]
    others: list[str]
    loose_images: bool

    @classmethod
    def of(cls, path: Path) -> "_Level":
        roles: dict[Role, list[str]] = {}
        others: list[str] = []
        folders, loose = [], False
        try:
            with os.scandir(path) as listing:
                for entry in listing:  # a million files, it may be: their names are not kept
                    if is_folder(entry):
                        folders.append(entry.name)
                    elif not loose:
                        loose = is_image(entry.name) and not is_hidden(entry.name)
        except OSError:  # the scan for images reports it
            folders, loose = [], False
        for name in sorted(folders, key=os.fsencode):
            if (role := role_of(name)) is not None:
                roles.setdefault(role, []).append(name)
            elif not is_hidden(name):
                others.append(name)
        return cls(path, roles, others, loose)

    @property
    def splits(self) -> list[str]:
        return [name for names in self.roles.values() for name in names]

    def others_with_images(self) -> list[str]:
        return [name for name in self.others if name.lower() not in _ANNOTATIONS and _has_image(self.path / name)]


def _has_image(folder: Path) -> bool:
    return any(
        is_image(name) and not is_hidden(name)
        for _, _, names in os.walk(folder, onerror=lambda error: None)
        for name in names
    )


def _level_of_splits(given: Path) -> _Level:
    """The level with the split folders: `given`, or inside of the only folder with images, or of `images` beside annotations."""
    first = level = _Level.of(given)
    for _ in range(4):
        if level.roles or level.loose_images or (inside := _only_folder(level)) is None:
            break
        level = _Level.of(level.path / inside)
    both = "train" in level.roles and len(level.roles) > 1
    return level if level is first or both else first


def _only_folder(level: _Level) -> str | None:
    names = level.others
    if 1 < len(names) <= _LOOKED_INTO:
        names = [name for name in names if _has_image(level.path / name)]
        images = [name for name in names if name.lower() not in _ANNOTATIONS]
        if len(images) == 1 and images[0].lower() in _IMAGES:
            return images[0]
    return names[0] if len(names) == 1 else None


def _inside(root: Path) -> Path:
    """The folder in `root`, if it holds nothing but a folder for the same split (train/train, as some programs unpack)."""
    for _ in range(2):
        level, role = _Level.of(root), role_of(root.name)
        names = [*level.splits, *level.others]
        if level.loose_images or len(names) != 1:
            break
        if names[0].lower() != root.name.lower() and (role is None or role_of(names[0]) != role):
            break
        root = root / names[0]
    return root


def _check_no_splits(given: Path, level: _Level) -> None:
    """Refuse a folder whose splits cannot be recognized: reading it whole would mix them."""
    folders = [(level, "")]
    for number, (here, above) in enumerate(folders):
        inside = [name for name in here.others if name.lower() not in _ANNOTATIONS]
        if pair := split_pair(inside):
            train, test = (above + name for name in pair)
            what = _folders(inside if not above else [train, test])
            raise DataError(
                f"{given} has {what}, which look like splits: set train_folder: {_quoted(train)} and test_folder: "
                f"{_quoted(test)}, or train_folder: . if they are classes"
            )
        if number and "train" in here.roles and len(here.roles) > 1:
            train, test = here.roles["train"][0], (here.roles.get("test") or here.roles["valid"])[0]
            found = here.path.relative_to(given).as_posix()
            raise DataError(
                f"{given} has split folders inside of others ({found}/{train}, {found}/{test}): set "
                f"train_folder: '{above}{train}' and test_folder: '{above}{test}', or train_folder: . for all images"
            )
        if above.count("/") < _DEEPEST and len(folders) < _LOOKED_INTO**2:
            one = "*" if len(inside) > 1 else "".join(inside)
            folders += [(_Level.of(here.path / name), f"{above}{one}/") for name in inside[:_LOOKED_INTO]]


def _quoted(pattern: str) -> str:
    return f"'{pattern}'" if "*" in pattern else pattern


def _recognized_train(given: Path, level: _Level, test: SplitFolder | None) -> SplitFolder | None:
    names = level.roles.get("train", [])
    if len(names) > 1:
        raise DataError(
            f"{level.path} has {_folders(names)} for the train split: set train_folder to one of them, or to . for all images"
        )
    if not names:
        if test is not None:
            return None
        if not level.loose_images and not (beside := level.others_with_images()):
            raise DataError(
                f"{level.path} has {_folders(level.splits)} and no folder train: set train_folder to the one with the images to "
                f"train on, for example train_folder: {_path(given, level, level.splits[0])}"
            )
        raise DataError(
            f"{level.path} has {_folders(level.splits)} beside {'images' if level.loose_images else _folders(beside)}: set "
            f"train_folder: . and test_folder: {_path(given, level, level.splits[0])} if it is a split, or only train_folder: . "
            "if it is a class"
        )
    root = _inside(level.path / names[0])
    train = root.relative_to(given).as_posix()
    if level.loose_images:
        raise DataError(
            f"{level.path} has images beside {_folders(level.splits)}: set train_folder: {train}, or train_folder: . (with "
            "test_folder, all images outside of that)"
        )
    if len(level.roles) == 1 and test is None and (beside := level.others_with_images()):
        raise DataError(
            f"{level.path} has a folder {names[0]} beside {_folders(beside)}: set train_folder: {train} if it is a split, or "
            "train_folder: . if it is a class"
        )
    return SplitFolder(root, f"folder {train}")


def _recognized_test(given: Path, level: _Level, train: SplitFolder | None) -> SplitFolder | None:
    for role in ("test", "valid"):
        used = set() if train is None else {train.root, *train.root.parents}
        names = [name for name in level.roles.get(role, []) if level.path / name not in used]
        if len(names) > 1:
            raise DataError(f"{level.path} has {_folders(names)} for the {role} split: set test_folder to one of them")
        if names:
            root = _inside(level.path / names[0])
            return SplitFolder(root, f"folder {root.relative_to(given).as_posix()}")
    return None


def _path(given: Path, level: _Level, name: str) -> str:
    return (level.path / name).relative_to(given).as_posix()


def _notes(given: Path, level: _Level, train: SplitFolder | None, test: SplitFolder | None) -> list[str]:
    used = {part.root for part in (train, test) if part is not None}
    over = [name for name in (*level.splits, *level.others_with_images()) if level.path / name not in used]
    over = [name for name in over if not any(level.path / name in root.parents for root in used)]
    words = [f"{split} images are those of {part.words}" for split, part in (("train", train), ("test", test)) if part]
    return [f"{given}: {', '.join(words)}" + (f"; passed over {_folders(over)}" if over else "")]


def _folders(names: list[str]) -> str:
    shown = [*names[:4], "…"] if len(names) > 5 else names
    if len(shown) == 1:
        return f"a folder {shown[0]}"
    return f"folders {', '.join(shown[:-1])} and {shown[-1]}" if shown[-1] != "…" else f"folders {', '.join(shown)}"
