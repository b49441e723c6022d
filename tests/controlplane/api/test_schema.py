"""The committed schema is the schema."""

from __future__ import annotations

from controlplane.api.schema import SDL_PATH, make_schema, sdl


def test_the_committed_schema_is_current() -> None:
    assert SDL_PATH.read_text() == sdl()


def test_every_field_is_described() -> None:
    schema = make_schema()._schema
    missing = [
        f"{name}.{field}"
        for name, kind in schema.type_map.items()
        if not name.startswith("__")
        for field, value in getattr(kind, "fields", {}).items()
        if not value.description
    ]
    assert missing == []
