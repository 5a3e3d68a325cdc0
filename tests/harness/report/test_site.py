"""`mopo-bench report`: a site that opens from disk, whose every text is escaped, and whose commands repeat the runs."""

import shlex
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from mopo_bench.common.errors import UserError
from mopo_bench.harness.report.groups import grouped, labelled
from mopo_bench.harness.report.pictures import curves
from mopo_bench.harness.report.repeat import repeat_commands
from mopo_bench.harness.report.site import write_site
from mopo_bench.harness.runs.ledger import load_runs

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = "\"><img src=x onerror=alert(1)><script>alert(2)</script>'&amp;{{ 7 * 7 }}"
VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """Tags with their attributes, the text that a reader sees, and whether every tag is closed."""

    def __init__(self, path):
        super().__init__()
        self.path, self.tags, self.text, self.open = path, [], "", []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open += [tag] * (tag not in VOID)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, (self.path.name, tag)

    def handle_data(self, text):
        self.text += text

    def addresses(self):
        return [value for _, attributes in self.tags for name, value in attributes.items() if name in ("href", "src")]

    def ids(self):
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


def site(records, out, **options):
    index = write_site(records.runs(), str(records.root), out, **options)
    return [Page(index), *map(Page, sorted((out / "tasks").glob("*.html")))]


@pytest.fixture
def several(records):
    records.add([[900.0, 1000.0], [1000.0, 1200.0], [800.0, 900.0]], overrides={"depth": 3})
    records.add([1000.0, 500.0], algorithm="sac", states=["done", "diverged"])
    records.add([10.0, 20.0], task="point-angle", warnings=[{"penalty": "the penalty is large"}, {}])
    return records


def test_links_resolve_and_nothing_comes_from_a_network(several, tmp_path):
    pages = site(several, tmp_path / "site")
    assert len(pages) == 3
    for page in pages:
        assert len(set(page.ids())) == len(page.ids())
        for address in page.addresses():
            assert not address.startswith(("http", "//")), address
            file, _, anchor = address.partition("#")
            if file.startswith("data:"):
                continue
            target = (page.path.parent / unquote(file)).resolve() if file else page.path.resolve()
            assert target.is_file() and target.is_relative_to(tmp_path.resolve()), address
            assert not anchor or anchor in Page(target).ids()
    assets = "".join((tmp_path / "site" / name).read_text() for name in ("report.css", "report.js"))
    assert "http" not in assets and "url(" not in assets and "@import" not in assets


def test_numbers_are_those_of_the_table(several, tmp_path):
    index, hopper, point = site(several, tmp_path / "site")
    assert "6 done, 1 diverged" in " ".join(index.text.split())
    for page, said in (
        (index, "MOPO against the others"),
        (hopper, "Diverged, not in the means: hopper-medium sac seed 1"),
        (hopper, "28.0"),  # the paper's
        (hopper, "--set mopo.depth=3"),
        (point, "the penalty is large"),
        (point, "15.0"),
    ):
        assert said in page.text, said


@pytest.mark.parametrize("place", ["overrides", "warnings", "about", "task", "algorithm", "parameters"])
def test_texts_of_records_are_escaped(records, tmp_path, place):
    short = HOSTILE.replace("/", "")  # of a folder's name
    options = {
        "overrides": {"overrides": {HOSTILE: HOSTILE}},
        "warnings": {"warnings": [{"penalty": HOSTILE}] * 2},
        "about": {"about": {"title": HOSTILE, "about": HOSTILE}},
        "task": {"task": short},
        "algorithm": {"algorithm": short},
        "parameters": {"parameters": {HOSTILE: HOSTILE}},
    }[place]
    records.add([1.0, 2.0], **{"task": "point-angle", **options})
    pages = site(records, tmp_path / "site")
    seen = "".join(page.text for page in pages)
    assert (short if place in ("task", "algorithm") else HOSTILE) in seen and "{{ 7 * 7 }}" in seen
    for page in pages:
        assert [attributes["src"] for tag, attributes in page.tags if tag == "script"] in (["report.js"], ["../report.js"])
        assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
        assert all(
            attributes["src"] in ("heatmap.png", f"{page.path.stem}.png") for tag, attributes in page.tags if tag == "img"
        )


def test_pages_of_tasks_whose_names_are_alike(records, tmp_path):
    for task in ("a b", "a-b", "A_B"):
        records.add([1.0], task=task)
    assert [page.path.name for page in site(records, tmp_path / "site")[1:]] == ["a-b--2.html", "a-b--3.html", "a-b.html"]


def test_a_seed_says_how_long_its_episodes_are(plan, tmp_path):
    """As its last evaluation found; a record from before there was such a vital has none."""
    from mopo_bench.harness.runs.runner import execute

    execute(plan("bc", results=tmp_path / "runs"), 1)
    (run,) = load_runs(tmp_path / "runs")
    length = run.evaluations[-1]["vitals"]["episode_length"]
    steps = f'<td class="number" data-value="{run.record["steps"]}">'
    for known, cell in {True: f'data-value="{length}">{length:.0f}</td>', False: 'data-value="None">–</td>'}.items():
        write_site([run], "runs", tmp_path / str(known))
        assert cell + steps in (tmp_path / str(known) / "tasks" / f"{run.task}.html").read_text(encoding="utf-8")
        run.evaluations[-1]["vitals"].pop("episode_length", None)


def test_a_run_without_a_number_has_a_page(records, tmp_path):
    records.add([1.0], states=["failed"])
    _, page = site(records, tmp_path / "site")
    assert "failed" in page.text and not [tag for tag, _ in page.tags if tag == "img"]


def test_a_variant_is_drawn_alike_on_every_page(records, tmp_path, monkeypatch):
    """Though others stand before it on one of them."""
    for task in ("hopper-medium", "point-angle"):
        records.add([1.0], task=task, algorithm="td3-bc")
        records.add([1.0], task=task, algorithm="z-stranger")
    records.add([1.0], task="point-angle", algorithm="another-stranger")
    drawn = []

    def watching(groups, looks):
        drawn.append(looks["z-stranger"])
        return curves(groups, looks=looks)

    monkeypatch.setattr("mopo_bench.harness.report.site.curves", watching)
    site(records, tmp_path / "site")
    assert len(drawn) == 2 and drawn[0] == drawn[1]


def test_films_stand_with_their_task(several, tmp_path):
    films = tmp_path / "films"
    films.mkdir()
    for name in ("hopper-medium mopo.png", "hopper-medium.mp4", "notes.txt"):
        (films / name).write_bytes(b"x")
    _, hopper, point = site(several, tmp_path / "site", films=films)
    shown = [attributes["src"] for tag, attributes in hopper.tags if tag in ("img", "video")][1:]
    assert shown == ["../films/hopper-medium%20mopo.png", "../films/hopper-medium.mp4"]
    assert (tmp_path / "site" / "films" / "hopper-medium mopo.png").read_bytes() == b"x"
    assert len([tag for tag, _ in point.tags if tag in ("img", "video")]) == 1


@pytest.mark.parametrize("name", ["halfcheetah-medium-expert.png", "halfcheetah-medium-expert mopo.mp4"])
def test_a_film_of_a_task_whose_name_begins_as_another_s_stands_with_its_own(records, tmp_path, name):
    """And is refused where its own task has no page, not shown on the other's."""
    films = tmp_path / "films"
    films.mkdir()
    (films / name).write_bytes(b"x")
    records.add([1.0], task="halfcheetah-medium")
    with pytest.raises(UserError, match="is that of no task here"):
        site(records, tmp_path / "site", films=films)
    records.add([1.0], task="halfcheetah-medium-expert")
    _, *pages = site(records, tmp_path / "site", films=films)
    assert {page.path.stem: "At work" in page.text for page in pages} == {
        "halfcheetah-medium": False,
        "halfcheetah-medium-expert": True,
    }


def test_the_command_says_where_it_is_and_refuses_in_a_line(several, command, tmp_path):
    out = tmp_path / "site"
    done = command("report", "--results", several.root, "--out", out)
    assert (done.code, done.out.strip(), done.err) == (0, str(out / "index.html"), "")
    (out / "tasks" / "old.html").write_text("of a task that is gone")
    assert command("report", "--results", several.root, "--out", out).code == 0  # a report is written anew
    assert not (out / "tasks" / "old.html").exists()
    films = tmp_path / "films"
    films.mkdir()
    (films / "ant.png").write_bytes(b"x")
    for words, said in (
        (("--out", several.root), "it is there already and is no report"),
        (("--out", out, "--films", films), "is that of no task here; name it after one of hopper-medium, point-angle"),
        (("--out", out, "--films", tmp_path / "none"), "there is no such folder"),
    ):
        refused = command("report", "--results", several.root, *words)
        assert refused.code == 2 and said in refused.err and refused.err.count("\n") == 1


def test_what_is_not_believed_is_said(several, command, tmp_path):
    (several.root / "hopper-medium" / "mopo" / "a" / "seed-1" / "record.json").write_text("{}")
    command("report", "--results", several.root, "--out", tmp_path / "site")
    assert "Not believed, and not in the numbers: hopper-medium/mopo/a/seed-1" in Page(tmp_path / "site" / "index.html").text


def test_the_command_of_a_page_asks_for_these_runs(plan, command, tmp_path):
    """It finds them done, under the identity that they have."""
    from mopo_bench.harness.runs.ledger import load_runs
    from mopo_bench.harness.runs.runner import execute

    results = tmp_path / "runs"
    execute(plan("bc", results=results, seeds=(3, 5), rows=900, data_seed=2), 1)
    (group,) = labelled(grouped(load_runs(results)))
    words = shlex.split(*repeat_commands(group))
    assert words[:2] == ["mopo-bench", "run"]
    assert {"--rows", "--data-seed", "--set", "--episodes"} <= set(words) and words[words.index("--seeds") + 1] == "3,5"
    before = {path: path.read_bytes() for path in results.rglob("record.json")}
    done = command(*words[1:], "--results", results, "--jobs", 1)
    assert done.code == 0
    assert {path: path.read_bytes() for path in results.rglob("record.json")} == before and len(before) == 2


@pytest.mark.parametrize("folder", ["ci", "point-edge", "demo"])
def test_the_command_of_a_published_record_asks_for_its_data(folder):
    """By the current versions of the algorithms the identity is that of the record, too."""
    from mopo_bench.harness.api import plan_run
    from mopo_bench.harness.runs.ledger import load_runs

    groups = labelled(grouped(load_runs(ROOT / "results" / "published" / folder)))
    for group in [each for each in groups if each.task.startswith("point")][:2]:
        words = shlex.split(*repeat_commands(group))[2:]
        asked = {name[2:].replace("-", "_"): value for name, value in zip(words[::2], words[1::2], strict=True)}
        (cell,) = plan_run(results="none", **asked).cells
        assert cell.digest == group.data["digest"] and cell.steps == 8000
        assert cell.identity == group.identity or cell.algorithm.versions != group.cell["versions"]


def test_the_command_of_data_that_is_not_made_any_more_refuses_to_run(records, command, tmp_path):
    """The package makes hopper-medium's data otherwise since recipe version 4: the command had run on the new one."""
    records.add([1.0], algorithm="bc", source="regenerated", rows=500, digest="3c909e8f99d472fa")
    (group,) = labelled(grouped(records.runs()))
    refused = command(*shlex.split(*repeat_commands(group))[1:], "--results", tmp_path / "new")
    assert refused.code == 2 and refused.err.startswith("mopo-bench: --data-digest 3c909e8f99d4: hopper-medium@regenerated has")
    assert not (tmp_path / "new").exists()


def test_seeds_that_were_evaluated_otherwise_have_a_command_of_their_own(records):
    """One command had run all of them as the longest."""
    records.add([[1.0, 2.0], [3.0, 4.0]], seeds=(0, 2), steps=2000)
    records.add([1.0], seeds=(1,), steps=2000)
    records.add([1.0], seeds=(3,), steps=1000)
    (group,) = labelled(grouped(records.runs()))
    asked = [command.split() for command in repeat_commands(group)]
    said = [[words[words.index(option) + 1] for option in ("--seeds", "--steps", "--evaluate-every")] for words in asked]
    assert said == [["0,2", "2000", "1000"], ["1,", "2000", "2000"], ["3,", "1000", "1000"]]


@pytest.mark.parametrize("source, asked", [("v0-changed", "d4rl"), ("v2", "d4rl-v2"), ("v2-changed", "d4rl-v2")])
def test_the_command_of_a_changed_file_asks_for_that_file(records, source, asked):
    """With "auto" it had quietly run on other data, where that file was not."""
    records.add([1.0], source=source)
    (group,) = labelled(grouped(records.runs()))
    words = shlex.split(*repeat_commands(group))
    assert words[words.index("--data") + 1] == asked


def test_films_that_lie_in_the_site_are_refused_and_stay(tmp_path):
    """It would take them away before it copies them."""
    site = write_site(load_runs(ROOT / "results" / "published" / "point-edge"), "point-edge", tmp_path / "site").parent
    film = site / "films" / "point-edge.png"
    film.parent.mkdir(exist_ok=True)
    film.write_bytes(b"film")
    with pytest.raises(UserError, match="where the report keeps its own"):
        write_site(load_runs(ROOT / "results" / "published" / "point-edge"), "point-edge", site, films=film.parent)
    assert film.read_bytes() == b"film"
