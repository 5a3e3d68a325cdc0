"""Tables in LaTeX are compiled to pages, where there is a LaTeX."""

import shutil
import subprocess
from pathlib import Path

import pytest
from mopo_bench.harness.report.choices import TABLES
from mopo_bench.harness.report.tables import render
from mopo_bench.harness.runs.ledger import load_runs

ROOT = Path(__file__).resolve().parents[3]
PAGE = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage[a4paper,landscape,margin=1cm]{geometry}
\usepackage{booktabs,graphicx}
\begin{document}
%s
\end{document}
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_compiled(name, records, tmp_path):
    if not shutil.which("pdflatex"):
        pytest.skip("there is no pdflatex here: apt-get install texlive-latex-base texlive-latex-recommended")
    folder = ROOT / "results" / "published" / "ci"
    runs = list(load_runs(folder))
    records.add([1000.0, 1200.0, 900.0], overrides={"a_b": "50 % & <x> {y} ~^#$\\"})
    records.add([100.0, 200.0, 300.0], algorithm="sac", states=["done", "diverged", "running"])
    runs += records.runs()
    source = tmp_path / "page.tex"
    source.write_text(PAGE % render(name, runs, folder, "latex"), encoding="utf-8")
    words = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", source.name]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert "Missing character" not in (tmp_path / "page.log").read_text(errors="replace")
