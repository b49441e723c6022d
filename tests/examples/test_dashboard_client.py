"""The example client: typed against the schema, checked strictly, built from pinned packages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.npm import DASHBOARD_CLIENT, FOLDERS, GRAPHIQL, install, npm

EXACT = re.compile(r"\d+\.\d+\.\d+")
ASSETS = Path(__file__).parents[2] / "controlplane/api/graphiql/assets"


@pytest.mark.timeout(300)
def test_the_client_is_generated_checked_and_built(tmp_path: Path) -> None:
    install(DASHBOARD_CLIENT)
    npm(DASHBOARD_CLIENT, "run", "codegen")
    npm(DASHBOARD_CLIENT, "run", "check")
    npm(DASHBOARD_CLIENT, "run", "build", "--", "--outDir", str(tmp_path / "page"))
    assert (tmp_path / "page/index.html").exists()
    documents = json.loads((DASHBOARD_CLIENT / "src/gql/persisted-documents.json").read_text())
    assert len(documents) == 7
    assert all(re.fullmatch("sha256:[0-9a-f]{64}", name) for name in documents)


def test_a_wrong_use_of_money_does_not_pass_the_check(tmp_path: Path) -> None:
    install(DASHBOARD_CLIENT)
    npm(DASHBOARD_CLIENT, "run", "codegen")
    wrong = DASHBOARD_CLIENT / "src/wrong.ts"
    wrong.write_text(
        'import type { BudgetPartsFragment } from "./gql/graphql";\n'
        "export const left = (budget: BudgetPartsFragment) => budget.limit - 1;\n"
    )
    try:
        with pytest.raises(AssertionError, match="TS2362"):
            npm(DASHBOARD_CLIENT, "run", "check")
    finally:
        wrong.unlink()


@pytest.mark.timeout(300)
def test_the_committed_graphiql_is_what_its_packages_give(tmp_path: Path) -> None:
    install(GRAPHIQL)
    npm(GRAPHIQL, "run", "build", "--", str(tmp_path))
    built = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert built == {path.name: path.read_bytes() for path in ASSETS.iterdir()}


def test_the_compiler_is_strict() -> None:
    options = json.loads((DASHBOARD_CLIENT / "tsconfig.json").read_text())["compilerOptions"]
    assert options["strict"]
    assert options["noUncheckedIndexedAccess"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_packages_are_pinned_and_their_addresses_are_not(folder: Path) -> None:
    package = json.loads((folder / "package.json").read_text())
    pinned = {**package["dependencies"], **package.get("devDependencies", {})}
    assert [name for name, version in pinned.items() if not EXACT.fullmatch(version)] == []
    lock = (folder / "package-lock.json").read_text()
    assert "resolved" not in lock
    assert ".tgz" not in lock
    assert "omit-lockfile-registry-resolved=true" in (folder / ".npmrc").read_text()
