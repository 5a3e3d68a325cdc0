"""The site of docs/: its navigation has every page, and its links are those of the pages on GitHub."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOOKS = runpy.run_path(str(ROOT / "docs" / "site_hooks.py"))
REPOSITORY = "https://example.org/repository"


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r"[\w/-]+\.md", text[text.index("\nnav:") :])
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert len(named) == len(set(named)) and set(named) == pages | set(HOOKS["OF_THE_ROOT"].values())


@pytest.mark.parametrize(
    ("link", "source", "page", "moved"),
    [
        ("data.md#x", "docs/check.md", "check.md", "data.md#x"),
        ("../ARCHITECTURE.md", "docs/concepts.md", "concepts.md", "architecture.md"),
        ("../fidelity.md", "docs/algorithms/bc.md", "algorithms/bc.md", "../fidelity.md"),
        ("docs/glossary.md", "ARCHITECTURE.md", "architecture.md", "glossary.md"),
        ("../results/collection/pack.py", "docs/data.md", "data.md", f"{REPOSITORY}/blob/main/results/collection/pack.py"),
        ("theory.py", "docs/theory.md", "theory.md", f"{REPOSITORY}/blob/main/docs/theory.py"),
        ("https://arxiv.org/abs/1", "docs/data.md", "data.md", "https://arxiv.org/abs/1"),
        ("#here", "docs/data.md", "data.md", "#here"),
    ],
)
def test_a_link_leads_where_it_does_on_github(link, source, page, moved):
    assert HOOKS["links_of_the_site"](f"see [this]({link}).", source, page, REPOSITORY) == f"see [this]({moved})."


def test_formulas_are_drawn_without_a_script():
    pytest.importorskip("latex2mathml", reason="needs latex2mathml: pip install latex2mathml")
    inline = r'<p><span class="arithmatex">\(\mathbb E[x] &lt; \mathcal F\)</span></p>'
    drawn = HOOKS["on_page_content"](inline + r'<div class="arithmatex">\[y \tag{7}\]</div>')
    assert "\\" not in drawn and drawn.count("<math") == 2 and "<mi>𝔼</mi>" in drawn and "<mi>ℱ</mi>" in drawn
    assert "<mtext>(7)</mtext>" in drawn and 'display="block"' in drawn and "&#x0003C;" in drawn


@pytest.mark.slow
def test_it_is_built_without_a_warning(tmp_path):
    pytest.importorskip("material", reason="needs mkdocs-material: pip install mkdocs-material")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    for page in (tmp_path / "site").rglob("*.html"):  # in blocks of code nothing is drawn, nor marked
        text = page.read_text(encoding="utf-8")
        assert text.count('class="arithmatex"') == text.count('class="arithmatex"><math'), page
        assert not re.search(r'<script[^>]* src="https?:', text), page
    assert "<math" in (tmp_path / "site" / "algorithms" / "mopo.html").read_text(encoding="utf-8")
    assert 'id="mopo-bench-report"' in (tmp_path / "site" / "commands.html").read_text()
