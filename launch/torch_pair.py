"""Whether torch and torchvision belong together, and which command repairs them: found without importing either."""

import importlib.metadata
import re
import sys
from dataclasses import dataclass
from pathlib import Path

REMOVE = "pip uninstall -y torch torchvision"  # first, because pip takes one build of a version for the other
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
BUILD = re.compile(r"""^__version__ = ['"]([0-9][^'"]*)['"]""", re.MULTILINE)
NEEDS = re.compile(r"^torch\s*\(?\s*([=>]=\s*[0-9][0-9.]*)")
NATIVE = re.compile(r"\.so\b|\.dll|\.dylib|undefined symbol|DLL load failed|Symbol not found|operator torchvision::")


@dataclass(frozen=True)
class Mismatch:
    """Two builds that do not work together, and the command that installs two that do."""

    seen: str
    remedy: str


def mismatch() -> Mismatch | None:
    """The mismatch of the torch and torchvision that are installed; None if there is none, or one of them is missing."""
    try:
        torch, torchvision = build_of("torch"), build_of("torchvision")
        needed = next(filter(None, map(NEEDS.match, importlib.metadata.requires("torchvision") or ())), None)
    except importlib.metadata.PackageNotFoundError:
        return None
    return compared(torch, torchvision, needed and needed[1].replace(" ", ""))


def compared(torch: str, torchvision: str, needed: str | None) -> Mismatch | None:
    """The mismatch of two builds such as "2.13.0+cpu" and "0.28.0+cu130"; `needed` is torchvision's
    requirement of torch, "==2.13.0" or ">=2.14.0"."""
    version, _, build = torch.partition("+")
    version_of_vision, _, build_of_vision = torchvision.partition("+")
    seen = f"torch {torch} with torchvision {torchvision}"
    # A CPU build was wanted; the package index has none for Linux on x86.
    index = f" --index-url {CPU_INDEX}" if build == "cpu" else ""
    if needed is not None and not _fits(version, needed):
        return Mismatch(
            f"{seen}, which needs torch{needed}",
            f"{REMOVE} && pip install 'torch{needed}' torchvision=={version_of_vision}{index}",
        )
    if build and build_of_vision and build != build_of_vision:
        if "cpu" not in (build, build_of_vision):
            words = f"{seen}: two builds for different versions of CUDA"
        else:
            words = f"{seen}: one is built for the CPU alone, the other for CUDA"
        command = f"pip install torch=={version} torchvision=={version_of_vision}{index}"
        return Mismatch(words, f"{REMOVE} && {command}")
    return None


def _fits(version: str, needed: str) -> bool:
    numbers, least = (tuple(map(int, re.findall(r"\d+", text))) for text in (version, needed))
    return numbers >= least if needed.startswith(">") else numbers == least


def build_of(package: str) -> str:
    """The version with its build ("2.13.0+cpu") as the package's own version.py says it; metadata may lack the build."""
    found = importlib.metadata.distribution(package)
    try:
        text = Path(str(found.locate_file(f"{package}/version.py"))).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return found.version
    written = BUILD.search(text)
    return written[1] if written else found.version


def broken_import(error: BaseException) -> str | None:
    """One line about a library that is missing, or that cannot load its compiled part; None for any other error."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return f"the package {package} is not installed: pip install {package}" if package in _needed() else None
    library = _library_of(error)
    if library is None or not NATIVE.search(str(error)):
        return None
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if (found := mismatch()) is not None:
        return f"{found.seen} ({reason}). Install two that belong together: {found.remedy}"
    return f"{library} cannot be imported: {reason}. Install it anew: pip install --force-reinstall torch torchvision"


def _library_of(error: BaseException) -> str | None:
    """torch or torchvision if the error was raised while one of them was imported."""
    if not isinstance(error, ImportError | OSError | RuntimeError | AttributeError):
        return None
    entry, found = error.__traceback__, None
    while entry is not None:
        name = entry.tb_frame.f_globals.get("__name__", "")
        if entry.tb_frame.f_code.co_name == "<module>" and name.partition(".")[0] in ("torch", "torchvision"):
            found = found or name.partition(".")[0]
        entry = entry.tb_next
    return found


def _needed() -> set[str]:
    """The modules that wildfern imports and installs, by name."""
    try:
        words = importlib.metadata.requires("wildfern") or []
    except importlib.metadata.PackageNotFoundError:
        return set()
    names = {re.split(r"[^A-Za-z0-9_-]", word, maxsplit=1)[0] for word in words if "extra ==" not in word}
    return names - set(sys.stdlib_module_names)
