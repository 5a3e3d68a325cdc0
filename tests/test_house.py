"""The house: imports run one way, no file is part of a circle, and an algorithm never reaches an environment."""

import ast
from pathlib import Path

import mopo_bench
import pytest
from mopo_bench.algorithms.learning.registry import all_algorithms

ROOT = Path(mopo_bench.__file__).parent
FOLDERS = ("common", "tasks", "algorithms", "harness")  # each imports from itself and those before it
SIMULATORS = {"gymnasium", "gym", "mujoco", "dm_control"}


class DropFunctions(ast.NodeTransformer):
    def visit_FunctionDef(self, node):
        return None


def imports(path, in_functions=True):
    """Dotted names that a file imports; `from a import b` gives a and a.b, relative ones made absolute."""
    package = ["mopo_bench", *path.relative_to(ROOT).parent.parts]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree if in_functions else DropFunctions().visit(tree)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def file_of(name):
    """The file of a module of this package, or None: a name within a module, or another package's."""
    if name.split(".")[0] != "mopo_bench":
        return None
    path = ROOT.joinpath(*name.split(".")[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def sources(folder):
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("path", sources("algorithms"), ids=lambda path: path.name)
def test_algorithms_import_no_environment(path):
    names = imports(path)
    assert not {name.split(".")[0] for name in names} & SIMULATORS
    rooms = ("environments", "simulation", "true_step", "catalog", "data.behaviour_policies", "data.simulator_agreement")
    forbidden = tuple(f"mopo_bench.tasks.{room}" for room in rooms)
    assert not [name for name in names if name.startswith(forbidden)]


def test_importing_the_algorithms_imports_no_environment():
    """Nor does what they import. `all_tasks` imports the catalogue, and so the environments, only when it is called."""
    reached, waiting = set(), sources("algorithms")
    while waiting:
        path = waiting.pop()
        if path in reached:
            continue
        reached.add(path)
        names = imports(path, in_functions=False)
        assert not {name.split(".")[0] for name in names} & SIMULATORS, path.name
        waiting += filter(None, map(file_of, names))
    assert ROOT / "tasks" / "data" / "dataset.py" in reached


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_run_one_way(folder):
    allowed = set(FOLDERS[: FOLDERS.index(folder) + 1])
    for path in sources(folder):
        parts = [name.split(".") for name in imports(path)]
        used = {name[1] for name in parts if name[0] == "mopo_bench" and len(name) > 1}
        assert used & set(FOLDERS) <= allowed, f"{path.name} imports {used & set(FOLDERS) - allowed}"
        assert not {name[0] for name in parts} & {"tests", *FOLDERS}  # the top-level folders are mopo_bench.*


def test_the_reader_of_imports_sees_relative_and_inner_ones():
    """Or the tests above would pass on anything."""
    found = imports(ROOT / "algorithms" / "learning" / "rollouts.py")
    assert {"torch", "mopo_bench.common.streams", "mopo_bench.algorithms.learning.dynamics.Dynamics"} <= found
    inner = "mopo_bench.harness.report.tables"
    assert inner in imports(ROOT / "harness" / "api.py")
    assert inner not in imports(ROOT / "harness" / "api.py", in_functions=False)
    assert file_of("mopo_bench.algorithms.learning.dynamics") == ROOT / "algorithms" / "learning" / "dynamics.py"


def test_no_circle_between_files():
    """Of imports at the top of files; those within functions may wait until both files are there."""
    following = {
        path: {found for name in imports(path, in_functions=False) if (found := file_of(name)) and found != path}
        for folder in FOLDERS
        for path in sources(folder)
        if path.name != "__init__.py"  # a package is imported before its files, whoever asks
    }
    done = set()

    def visit(path, above):
        assert path not in above, " -> ".join(each.name for each in [*above[above.index(path) :], path])
        if path in following and path not in done:
            for each in sorted(following[path]):
                visit(each, [*above, path])
            done.add(path)

    for path in following:
        visit(path, [])


# Words of algorithms are their names, their stages and their settings. Only an algorithm's own file, hyperparameters.toml,
# suites, the small settings of tests and the paper's tables may know them.
MAY_KNOW = ("algorithms/learning/testing.py", "harness/report/paper.py")
COMMON = {"steps", "warmup_steps", "initialisation", "adam"}  # words of the contract, too
OTHERWISE = {
    "algorithms/learning/dynamics.py": {"dynamics", "elites", "holdout_rows"},  # its random streams, state and record
    "algorithms/learning/registry.py": {"hidden"},  # how settings end that are sizes of layers
    "algorithms/learning/rollouts.py": {"dynamics", "rollout_length", "penalty"},  # the stage that it names, what it measures
    "harness/collection/collect.py": {"sac"},  # a part of an identity
}


def words_of_algorithms():
    words = set()
    for name, algorithm in all_algorithms().items():
        if algorithm.origin.startswith("mopo_bench"):
            words |= {name, *algorithm.stages}
            words |= {part for key in algorithm.defaults() for part in (key, key.rpartition(".")[2])}
    return words - COMMON


def strings(path):
    """The string literals of a file, without its docstrings and the text of f-strings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prose = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    prose |= {value for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in prose)
    return {node.value for node in constants if isinstance(node.value, str)}


@pytest.mark.parametrize("folder", ("common", "algorithms/learning", "harness"))
def test_nothing_else_knows_the_words_of_an_algorithm(folder):
    words = words_of_algorithms()
    assert {"mopo", "bear-2020", "dynamics", "rollout_length", "dynamics.max_epochs", "max_epochs"} <= words
    for path in sources(folder):
        place = path.relative_to(ROOT).as_posix()
        known = words & strings(path) - OTHERWISE.get(place, set())
        assert place in MAY_KNOW or not known, f"{place} knows {sorted(known)}"


@pytest.mark.parametrize("path", sources("algorithms"), ids=lambda path: path.name)
def test_nothing_wants_the_fast_forms(path):
    """What is in `fast` may be deleted without changing a number; only its tests, which come with the contract's, know it."""
    fast = ROOT / "algorithms" / "learning" / "fast"
    if path.parent != fast and path.name != "testing.py":
        assert not [name for name in imports(path) if name.startswith("mopo_bench.algorithms.learning.fast")]


def test_the_reader_of_strings_sees_them():
    assert {"dynamics", "rollout_length"} <= strings(ROOT / "algorithms" / "learning" / "rollouts.py")
    assert {"bc", "mopo"} <= strings(ROOT / "harness" / "report" / "paper.py")
