"""What each plane says of limits that another process enforces."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from comptroller.app import Comptroller
from comptroller.settings import Settings
from controlplane.limits.models import ScopeKind
from controlplane.limits.state import no_limit_states
from controlplane.limits.subjects import Scope
from core_rs import Engine


def settings(folder: Path) -> Settings:
    return Settings.from_environment({"COMPTROLLER_DATA_DIR": str(folder)})


async def test_the_control_plane_alone_claims_no_live_figures(tmp_path: Path) -> None:
    """Its engine never sees a request: its counters would stand still and be called live."""
    comptroller = Comptroller(settings(tmp_path), plane="control")
    assert comptroller.control.backend.limit_states is no_limit_states
    await comptroller.database.aclose()


async def test_an_organization_that_is_not_loaded_has_no_live_figures(tmp_path: Path) -> None:
    comptroller = Comptroller(settings(tmp_path))
    assert isinstance(comptroller.engine, Engine)
    place = uuid4()
    scope = Scope(ScopeKind.ORGANIZATION, place)
    assert comptroller.control.backend.limit_states(place, scope) == {}
    await comptroller.database.aclose()
