"""The page of errors lists every code that can be produced, with its status, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/errors.md").read_text()
ROW = re.compile(r"^\| `([a-z_]+)` \| (\d{3}|4xx) \|", re.MULTILINE)
CODE = re.compile(r"[a-z]+(_[a-z]+)*")
# What makes a problem: which argument is its code, and the status where that is always the same.
MAKERS = {"Problem": (1, None), "invalid_request": (0, "400"), "bad_response": (1, "502")}
# Codes that come from the Rust side or from a class; they are collected there.
ELSEWHERE = {"error.code", "refusal.code"}
# Codes that the engine gives and a table explains: the variable, and the table whose keys they are.
TABLES = {"code": "_RULES"}
ENGINE_CODE = re.compile(r'\(\s*"([a-z]+(?:_[a-z]+)+)",\s*(4\d\d|5\d\d)\b')
BUDGET_CODE = re.compile(r'ScopeKind::\w+ => "([a-z_]+)",')
WIRE_CODE = re.compile(r'Self::\w+ => "([a-z_]+)"')


def _sources() -> Iterator[ast.Module]:
    for path in [*sorted((ROOT / "proxy").rglob("*.py")), ROOT / "comptroller/app.py"]:
        yield ast.parse(path.read_text(), str(path))


def _texts(node: ast.AST) -> set[str]:
    return {
        each.value
        for each in ast.walk(node)
        if isinstance(each, ast.Constant)
        and isinstance(each.value, str)
        and CODE.fullmatch(each.value)
    }


def _assigned(module: ast.Module, name: str) -> set[str]:
    """Give the texts that a variable, or the defaults of a parameter, may hold."""
    found: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            found |= _texts(node.value)
            others = {each.id for each in ast.walk(node.value) if isinstance(each, ast.Name)}
            found |= {text for other in others - {name} for text in _assigned(module, other)}
        elif isinstance(node, ast.FunctionDef):
            arguments = node.args.args[len(node.args.args) - len(node.args.defaults) :]
            for argument, default in zip(arguments, node.args.defaults, strict=True):
                found |= _texts(default) if argument.arg == name else set()
    return found


def _keys(module: ast.Module, table: str) -> set[str]:
    """Give the texts that are keys of a table."""
    return {
        text
        for node in ast.walk(module)
        if isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == table
        and isinstance(node.value, ast.Dict)
        for key in node.value.keys
        if key is not None
        for text in _texts(key)
    }


def _is_passed_in(module: ast.Module, name: str) -> bool:
    """Say whether a variable is a parameter of a maker: its callers are looked at as well."""
    return any(
        isinstance(node, ast.FunctionDef)
        and node.name in MAKERS
        and name in {argument.arg for argument in node.args.args}
        for node in ast.walk(module)
    )


def _codes_of(module: ast.Module, code: ast.expr) -> set[str]:
    written = ast.unparse(code)
    found = _assigned(module, written) if isinstance(code, ast.Name) else _texts(code)
    found |= _keys(module, TABLES.get(written, ""))
    assert found or written in ELSEWHERE or _is_passed_in(module, written), written
    return found


def _python_codes() -> Iterator[tuple[str, str | None]]:
    """Give each code with its status, or None where the status is not written beside it."""
    for module in _sources():
        for node in ast.walk(module):
            if isinstance(node, ast.Call):
                yield from _call_codes(module, node)
            elif isinstance(node, ast.ClassDef):
                yield from _class_code(node)


def _call_codes(module: ast.Module, call: ast.Call) -> Iterator[tuple[str, str | None]]:
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    position, status = MAKERS.get(name, (0, None))
    if name not in MAKERS or len(call.args) <= position:
        return
    if name == "Problem" and isinstance(call.args[0], ast.Constant):
        status = ast.unparse(call.args[0])
    for code in _codes_of(module, call.args[position]):
        yield code, status


def _class_code(node: ast.ClassDef) -> Iterator[tuple[str, str | None]]:
    """Read the `code` and `status` that an error class declares."""
    stated = {
        ast.unparse(each.targets[0] if isinstance(each, ast.Assign) else each.target): each.value
        for each in node.body
        if isinstance(each, ast.Assign | ast.AnnAssign) and isinstance(each.value, ast.Constant)
    }
    if "code" in stated:
        status = stated.get("status")
        yield str(ast.literal_eval(stated["code"])), status and ast.unparse(status)


def _rust_codes() -> Iterator[tuple[str, str | None]]:
    for path in sorted((ROOT / "core_rs/engine/src").rglob("*.rs")):
        source = path.read_text()
        yield from ENGINE_CODE.findall(source)
        for code in BUDGET_CODE.findall(source):
            if code.endswith("_exceeded"):
                yield code, "402"
    for code in WIRE_CODE.findall((ROOT / "core_rs/wire/src/error.rs").read_text()):
        yield code, None


def test_the_page_lists_the_codes_that_can_be_produced_and_no_other() -> None:
    listed = [code for code, _ in ROW.findall(PAGE)]
    assert len(set(listed)) == len(listed)
    produced = {code for code, _ in [*_python_codes(), *_rust_codes()]}
    assert sorted(produced - set(listed)) == []
    assert sorted(set(listed) - produced) == []


def test_the_page_gives_each_code_its_status() -> None:
    listed = dict(ROW.findall(PAGE))
    stated = {(code, status) for code, status in [*_python_codes(), *_rust_codes()] if status}
    assert len(stated) > 30
    assert sorted((code, status) for code, status in stated if listed[code] != status) == []


def test_both_languages_were_looked_at() -> None:
    python = {code for code, _ in _python_codes()}
    rust = {code for code, _ in _rust_codes()}
    assert {
        "internal_error",
        "upstream_timeout",
        "not_found",
        "upstream_rate_limited",
        "endpoint_blocked",
    } <= python
    assert {
        "key_budget_exceeded",
        "concurrency_exceeded",
        "organization_suspended",
        "json_too_deep",
    } <= rust


def test_every_way_to_wait_is_explained() -> None:
    sources = [path.read_text() for path in (ROOT / "core_rs/engine/src").rglob("*.rs")]
    names = {
        name
        for source in sources
        for name in re.findall(r'Self::(?:OpenRequests|Period|TopUp|Never) => "(\w+)"', source)
    }
    assert names == {"open_requests", "period", "top_up", "never"}
    assert {name for name in names if f"`{name}` (" not in PAGE} == set()
