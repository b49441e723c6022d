"""Global ids: opaque text that names an object of the API and the organization it is in."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

import strawberry

from controlplane.api.request import Info
from controlplane.errors import Subject
from controlplane.limits.models import LABEL_KINDS, ScopeKind
from controlplane.limits.subjects import Scope
from controlplane.scope import not_found

_BYTES = 33
_TEXT_LENGTH_MAX = 44


class NodeKind(StrEnum):
    """The letter that a global id starts with, by what it names."""

    ORGANIZATION = "O"
    TEAM = "T"
    MEMBER = "M"
    KEY = "K"
    BUDGET = "B"
    RATE_LIMIT = "R"
    ORGANIZATION_BREAKER = "o"
    TEAM_BREAKER = "t"
    MEMBER_BREAKER = "m"
    RULE = "A"
    REQUEST = "Q"
    COST_CENTER = "C"
    EXCHANGE_RATE = "X"
    PLAN = "L"
    WALLET = "W"
    WALLET_ENTRY = "w"
    TENANT_BUDGET = "G"
    ACCESS_TOKEN = "P"  # noqa: S105  a letter
    POOL = "p"
    CONCURRENCY_LIMIT = "N"
    INSTALLATION_LIMIT = "I"
    # Names a scope that is no object of its own: a feature, an agent, a member in a team.
    LABEL = "L"


SCOPE_NODES = {
    ScopeKind.ORGANIZATION: NodeKind.ORGANIZATION,
    ScopeKind.TEAM: NodeKind.TEAM,
    ScopeKind.MEMBER: NodeKind.MEMBER,
    ScopeKind.KEY: NodeKind.KEY,
    ScopeKind.POOL: NodeKind.POOL,
    **dict.fromkeys(LABEL_KINDS, NodeKind.LABEL),
    ScopeKind.MEMBER_IN_TEAM: NodeKind.LABEL,
    ScopeKind.PROVIDER: NodeKind.LABEL,
    ScopeKind.INSTALLATION: NodeKind.LABEL,
}
BREAKER_NODES = {
    ScopeKind.ORGANIZATION: NodeKind.ORGANIZATION_BREAKER,
    ScopeKind.TEAM: NodeKind.TEAM_BREAKER,
    ScopeKind.MEMBER: NodeKind.MEMBER_BREAKER,
}
# What an error is about, by the name of its table or of the kind of limit.
_SUBJECT_NODES = {
    "organizations": NodeKind.ORGANIZATION,
    "exchange_rates": NodeKind.EXCHANGE_RATE,
    "plans": NodeKind.PLAN,
    "wallets": NodeKind.WALLET,
    "tenant_budgets": NodeKind.TENANT_BUDGET,
    "teams": NodeKind.TEAM,
    "members": NodeKind.MEMBER,
    "cost_centers": NodeKind.COST_CENTER,
    "virtual_keys": NodeKind.KEY,
    "limits": NodeKind.BUDGET,
    "concurrency": NodeKind.CONCURRENCY_LIMIT,
    "installation_limits": NodeKind.INSTALLATION_LIMIT,
    "pools": NodeKind.POOL,
    "rules": NodeKind.RULE,
    "rate": NodeKind.RATE_LIMIT,
    "organization_breaker": NodeKind.ORGANIZATION_BREAKER,
    "team_breaker": NodeKind.TEAM_BREAKER,
    "member_breaker": NodeKind.MEMBER_BREAKER,
}


@strawberry.interface(description="An object with a global id.")
class Node:
    """An object that `node(id:)` finds."""

    id: strawberry.ID = strawberry.field(description="Opaque global id; pass it back unchanged.")


@dataclass(frozen=True, slots=True)
class GlobalId:
    """What a global id says."""

    kind: NodeKind
    organization_id: UUID
    id: UUID

    def text(self) -> strawberry.ID:
        """Write the id as the API shows it."""
        raw = self.kind.value.encode() + self.organization_id.bytes + self.id.bytes
        return strawberry.ID(urlsafe_b64encode(raw).decode())


def global_id(kind: NodeKind, organization_id: UUID, row_id: UUID) -> strawberry.ID:
    """Write a global id."""
    return GlobalId(kind, organization_id, row_id).text()


def parse_global_id(text: str) -> GlobalId | None:
    """Read a global id; None when it is none."""
    if len(text) != _TEXT_LENGTH_MAX or not text.isascii():
        return None
    try:
        raw = urlsafe_b64decode(text)
        kind = NodeKind(raw[:1].decode("latin-1"))
    except ValueError:
        return None
    if len(raw) != _BYTES:
        return None
    return GlobalId(kind, UUID(bytes=raw[1:17]), UUID(bytes=raw[17:]))


def expect(text: str, kind: NodeKind, noun: str) -> GlobalId:
    """Read a global id of one kind.

    Raises `NotFound` when it is of another kind, or no global id.
    """
    found = parse_global_id(text)
    if found is None or found.kind is not kind:
        raise not_found(noun)
    return found


def expect_in(text: str | None, kind: NodeKind, noun: str, organization_id: UUID) -> UUID | None:
    """Read an optional global id of an object of this organization.

    Raises `NotFound` when it is another organization's, of another kind, or no global id.
    """
    if text is None:
        return None
    found = expect(text, kind, noun)
    if found.organization_id != organization_id:
        raise not_found(noun)
    return found.id


def scope_id(organization_id: UUID, scope: Scope) -> strawberry.ID:
    """Write the global id of the object a limit is about."""
    return global_id(SCOPE_NODES[scope.kind], organization_id, scope.id)


def id_of_subject(subject: Subject) -> GlobalId:
    """Name what an error is about."""
    return GlobalId(_SUBJECT_NODES[subject.kind], subject.organization_id, subject.id)


async def load_node(info: Info, name: GlobalId) -> Node | None:
    """Find any object; None when there is none or the caller may not see it."""
    # It knows all types of the API, some of which refer to any node.
    from controlplane.api.lookup import find_node  # noqa: PLC0415

    return await find_node(info, name)
