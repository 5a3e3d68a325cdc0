"""What mkdocs asks while it builds the site. Pages of the repository's root are in it, too, and pictures of other folders;
links to files that are not lead to the repository. Formulas become MathML, which a browser draws without a network or a script.
The pages stay as GitHub shows them.
"""

import html
import posixpath
import re
import unicodedata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OF_THE_ROOT = {"ARCHITECTURE.md": "architecture.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
PICTURES = (".png", ".svg")
SHOWN = (".md", *PICTURES)  # of docs/, and pictures of other folders; the rest is in the repository alone
FORMULA = re.compile(r'(<(span|div) class="arithmatex">)\\([(\[])(.+?)\\[)\]](</\2>)', re.DOTALL)  # as pymdownx leaves it
STYLED = re.compile(r'<mi mathvariant="(?!normal)([a-z-]+)">([A-Z])</mi>')
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


def on_page_content(content: str, **_: Any) -> str:
    """The HTML of a page with its formulas drawn."""
    return FORMULA.sub(lambda found: found[1] + mathml(html.unescape(found[4]), found[3] == "[") + found[5], content)


def mathml(formula: str, alone: bool) -> str:
    """A formula of LaTeX as MathML; `alone` on a line of its own, where its number follows it.

    Browsers know a letter of another style than upright only as the character that Unicode has for it.
    """
    from latex2mathml.converter import convert

    def letter(found: re.Match[str]) -> str:
        style = found[1].upper()
        for name in (f"MATHEMATICAL {style} CAPITAL {found[2]}", f"{style} CAPITAL {found[2]}"):
            try:
                return f"<mi>{unicodedata.lookup(name)}</mi>"
            except KeyError:
                continue
        raise ValueError(f"no letter {found[2]} in style {found[1]} in {formula}")

    numbered = re.sub(r"\\tag\{(.+?)\}", r"\\qquad \\text{(\1)}", formula)
    drawn = STYLED.sub(letter, convert(numbered, display="block" if alone else "inline"))
    if unknown := re.search(r'mathvariant="(?!normal)[^"]*"[^<]*|\\\w+', drawn):
        raise ValueError(f"cannot draw {unknown[0]} in {formula}")
    return drawn.replace("<mo>&#x02016;</mo>", '<mo stretchy="false">&#x02016;</mo>')  # bars as high as letters
