"""The tree keeps its shape: who may import whom, and what `python -m tools.` offers. Read off the import statements."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = {"__init__", "command_line", "markdown", "staging"}  # the files of tools/ that nobody types
COMMANDS = sorted(path.stem for path in (ROOT / "tools").glob("*.py") if path.stem not in SHARED)


def modules():
    """Every module of the project: its dotted name and its path."""
    paths = [path for root in ("pipelines", "models", "tools") for path in sorted((ROOT / root).rglob("*.py"))]
    named = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    return named | {name: ROOT / f"{name}.py" for name in ("train", "eval")}


MODULES = modules()


def imports():
    """module -> the modules of the project that it imports, in functions too; what is only for types does not count."""
    found = defaultdict(set)
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text())
        for_types = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if id(node) in for_types:
                continue
            if isinstance(node, ast.Import):
                found[module] |= {name.name for name in node.names if name.name in MODULES}
            elif isinstance(node, ast.ImportFrom) and node.module:
                parts = {f"{node.module}.{name.name}" for name in node.names}
                found[module] |= {part for part in parts if part in MODULES}
                if node.module in MODULES and not parts <= set(MODULES):
                    found[module].add(node.module)
        found[module].discard(module)
    return found


IMPORTS = imports()


def root(module):
    return module.partition(".")[0]


def circles():
    """The groups of modules that import each other in a circle (Tarjan's strongly connected components)."""
    order, low, stack, groups = {}, {}, [], []

    def visit(module):
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in IMPORTS[module]:
            if other not in order:
                visit(other)
            if other in stack:
                low[module] = min(low[module], low[other])
        if low[module] == order[module]:
            place = stack.index(module)
            groups.append(stack[place:])
            del stack[place:]

    for module in MODULES:
        if module not in order:
            visit(module)
    return [group for group in groups if len(group) > 1]


def test_no_circle():
    assert circles() == []


@pytest.mark.parametrize(
    ("importer", "forbidden"), [("pipelines", "models"), ("pipelines", "tools"), ("models", "tools")]
)
def test_data_flows_one_way(importer, forbidden):
    wrong = {(m, other) for m in MODULES if root(m) == importer for other in IMPORTS[m] if root(other) == forbidden}
    assert wrong == set()


def test_no_command_is_imported():
    commands = {f"tools.{name}" for name in COMMANDS}
    wrong = {(module, other) for module in MODULES for other in IMPORTS[module] & commands}
    assert wrong == set()


def test_every_flat_file_of_tools_is_a_command():
    assert len(COMMANDS) == 15
    for name in COMMANDS:
        assert "guarded_main(" in (ROOT / "tools" / f"{name}.py").read_text(), name
