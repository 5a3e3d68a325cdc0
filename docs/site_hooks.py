"""What mkdocs asks while it builds the site. Pages of the repository's root are in it, too, and pictures of other folders;
links to files that are not lead to the repository. The pages stay as GitHub shows them.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OF_THE_ROOT = {"ARCHITECTURE.md": "architecture.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
PICTURES = (".png", ".svg")
SHOWN = (".md", *PICTURES)  # of docs/, and pictures of other folders; the rest is in the repository alone
LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]+)((?:#[^)]*)?\))")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages of the repository's root, and the pictures that pages show from beside `docs/`."""
    from mkdocs.structure.files import File

    for source in (ROOT / "docs").rglob("*.md"):
        folder = source.parent.relative_to(ROOT).as_posix()
        for found in LINK.finditer(source.read_text(encoding="utf-8")):
            target = posixpath.normpath(posixpath.join(folder, found[2]))
            if target.endswith(PICTURES) and not target.startswith("docs/") and files.get_file_from_path(target) is None:
                files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
    for name, page in OF_THE_ROOT.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """The text of a page with its links as the site has them."""
    name = page.file.src_uri
    source = next((root for root, own in OF_THE_ROOT.items() if own == name), f"docs/{name}")
    return links_of_the_site(markdown, source, name, config["repo_url"])


def links_of_the_site(markdown: str, source: str, name: str, repository: str) -> str:
    """Links of the file `source`, a path in the repository, as the page `name` of the site needs them."""

    def moved(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[2]))
        if target in OF_THE_ROOT or target.endswith(SHOWN if target.startswith("docs/") else PICTURES):
            place = OF_THE_ROOT.get(target, target.removeprefix("docs/"))
            return f"{found[1]}{posixpath.relpath(place, posixpath.dirname(name) or '.')}{found[3]}"
        return f"{found[1]}{repository}/blob/main/{target}{found[3]}"

    return LINK.sub(moved, markdown)
