"""House rules that matter enough to be tests."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("comptroller", "controlplane", "core_rs", "proxy")
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500
# Time is read in one module of the product; the simulator is another program in the same wheel.
CLOCK_MODULES = {Path("controlplane/clock.py")}
CLOCK_CALLS = {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "now", "utcnow"}
VAGUE_NAMES = {"utils", "helpers", "common", "manager", "base"}


def _sources() -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "migrations/versions" not in path.as_posix():
                yield path.relative_to(ROOT)


def _tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def test_the_benchmarks_can_be_loaded() -> None:
    """Nothing else of this run looks at them, and what they measure moves."""
    loaded = subprocess.run(
        [sys.executable, "-c", "import benchmarks.__main__"], cwd=ROOT, check=False
    )
    assert loaded.returncode == 0


def test_no_function_is_too_long() -> None:
    too_long = [
        f"{path}:{node.lineno} {node.name}"
        for path in _sources()
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert too_long == []


def test_no_file_is_too_long() -> None:
    rust = [
        path.relative_to(ROOT)
        for path in (ROOT / "core_rs").rglob("*.rs")
        if "tests" not in path.parts
    ]
    lengths = {path: (ROOT / path).read_text().count("\n") for path in [*_sources(), *rust]}
    assert [path for path, lines in lengths.items() if lines > FILE_LINES_MAX] == []


def test_clocks_are_read_in_one_module() -> None:
    readers = [
        f"{path}:{node.lineno}"
        for path in _sources()
        if path not in CLOCK_MODULES and "simulator" not in path.parts
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in CLOCK_CALLS
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in {"time", "datetime"}
    ]
    assert readers == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [path for path in _sources() if path.stem in VAGUE_NAMES] == []


def test_money_is_never_a_float() -> None:
    floats = [
        f"{path}:{node.lineno}"
        for path in _sources()
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and node.target.id.endswith(("_nanos", "_picos"))
        and "float" in ast.unparse(node.annotation)
    ]
    assert floats == []
