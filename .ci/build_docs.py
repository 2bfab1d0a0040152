"""Hooks of mkdocs: where the packages are, and files of the repository that pages link to."""

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
from packages import ROOT, link_packages

LINK = re.compile(r"(?<=\]\()\.\./[^)#]+")


def outside(link: str, page: File) -> str | None:
    """The path in the repository that a link of `page` leads to, if it is not below docs/."""
    docs = ROOT / "docs"
    target = (Path(page.abs_src_path).parent / link).resolve()
    return None if target.is_relative_to(docs) else target.relative_to(ROOT).as_posix()


@event_priority(100)  # before mkdocstrings reads it
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Show mkdocstrings the packages under their names."""
    handlers = config.plugins["mkdocstrings"].config.handlers
    handlers.setdefault("python", {})["paths"] = [str(link_packages())]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take what pages link to outside docs/ into the site, at its path in the repository."""
    linked = {outside(link, page) for page in files.documentation_pages() for link in LINK.findall(page.content_string)}
    for target in sorted(linked - {None}):
        files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead those links there: the site's root is where docs/ was."""

    def moved(link: re.Match) -> str:
        target = outside(link[0], page.file)
        return link[0] if target is None else "../" * page.file.src_uri.count("/") + target

    return LINK.sub(moved, markdown)
