"""Changes to virtual keys; each flushes and puts itself on record."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from controlplane.audit.service import facts, record
from controlplane.authz import Action, Reach, Target, require
from controlplane.context import Work
from controlplane.errors import Conflict, InvalidInput
from controlplane.inputs import checked_text
from controlplane.keys import queries
from controlplane.keys.idempotency import earlier_result, remember_result
from controlplane.keys.models import KEY_NAME_LENGTH_MAX, KeySecret, KeyState, VirtualKey
from controlplane.keys.secret import SecretKind, digest, new_secret
from controlplane.limits.service import set_new_key_rates
from controlplane.policies.service import set_new_key_rule
from controlplane.pools.service import checked_pools
from controlplane.scope import subject_of
from controlplane.tenancy.queries import member_by_id, organization_by_id, team_by_id
from controlplane.tenancy.service import check_cost_center, key_changed
from controlplane.versions import check_version

TAGS_MAX = 20
TAG_NAME_LENGTH_MAX = 64
TAG_VALUE_LENGTH_MAX = 256
# What is shown of a secret besides its last four digits.
SHOWN_DIGITS = 4


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a caller asks for; None means not given, and for the limits and models: none."""

    name: str
    member_id: UUID | None = None
    team_id: UUID | None = None
    cost_center_id: UUID | None = None
    pool_ids: tuple[UUID, ...] = ()
    expires_at: datetime | None = None
    tags: dict[str, str] = field(default_factory=dict)
    allowed_models: tuple[str, ...] | None = None
    agent: str | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    is_test: bool = False


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A key, and its secret if this call made it; `replayed` when an earlier call did."""

    key: VirtualKey
    secret: str | None
    replayed: bool


async def create_key(
    work: Work, organization_id: UUID, new: NewKey, *, idempotency_key: str
) -> CreatedKey:
    """Create a key; its secret is returned this once and never again.

    The same call with the same idempotency key returns the first key without its secret.

    Raises `InvalidInput`, `Conflict` for an archived cost center or pool, `IdempotencyMismatch`,
    `NotFound`, `NotPermitted`.
    """
    request = _fingerprinted(new)
    new = _with_owner(work, organization_id, new)
    target = Target(organization_id, team_id=new.team_id, member_id=new.member_id)
    require(work.caller, Action.KEYS_WRITE, target, "organization")
    earlier_id = await earlier_result(work, organization_id, idempotency_key, request)
    if earlier_id is not None:
        earlier = await queries.key_by_id(work.session, organization_id, earlier_id)
        return CreatedKey(earlier, None, replayed=True)
    await organization_by_id(work.session, organization_id)
    await check_owner(work, organization_id, team_id=new.team_id, member_id=new.member_id)
    await check_cost_center(work, target, new.cost_center_id)
    pool_ids = await checked_pools(work, organization_id, new.pool_ids, None)
    key, secret = await _insert(work, organization_id, new, pool_ids)
    await _set_rules(work, key, new)
    await remember_result(work, organization_id, idempotency_key, request, key.id)
    record(work, "key.create", key, organization_id=organization_id, after=facts(key))
    await key_changed(work, organization_id, key.id, policy=True)
    return CreatedKey(key, secret, replayed=False)


async def revoke_key(
    work: Work,
    organization_id: UUID,
    key_id: UUID,
    *,
    reason: str | None = None,
    expected_version: int | None = None,
) -> VirtualKey:
    """Revoke a key for good; revoking it again changes nothing.

    Raises `InvalidInput`, `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    key = await key_to_change(work, organization_id, key_id)
    reason = _checked_reason(reason)
    if key.state is not KeyState.REVOKED:
        check_seen(key, expected_version)
        await _change_state(work, key, KeyState.REVOKED, "key.revoke", reason)
    return key


async def set_key_enabled(
    work: Work,
    organization_id: UUID,
    key_id: UUID,
    *,
    enabled: bool,
    reason: str | None = None,
    expected_version: int | None = None,
) -> VirtualKey:
    """Disable a key for a while, or enable it again; where it is so already, nothing changes.

    Raises `Conflict` for a revoked key, `InvalidInput`, `StaleVersion`, `NotFound`,
    `NotPermitted`.
    """
    key = await key_to_change(work, organization_id, key_id)
    reason = _checked_reason(reason)
    refuse_revoked(key)
    state = KeyState.ACTIVE if enabled else KeyState.DISABLED
    if key.state is not state:
        check_seen(key, expected_version)
        await _change_state(work, key, state, "key.enable" if enabled else "key.disable", reason)
    return key


def check_seen(key: VirtualKey, expected_version: int | None) -> None:
    """Refuse one who names another version of the key than the latest.

    Raises `StaleVersion`.
    """
    if expected_version is not None:
        check_version(key.version, expected_version, subject_of(key))


def refuse_revoked(key: VirtualKey) -> None:
    """Refuse to change what has been revoked.

    Raises `Conflict`.
    """
    if key.state is KeyState.REVOKED:
        raise Conflict("A revoked key stays revoked.", field=("keyId",))


def _checked_reason(reason: str | None) -> str | None:
    return None if reason is None else checked_text(reason, "reason", KEY_NAME_LENGTH_MAX)


async def key_to_change(work: Work, organization_id: UUID, key_id: UUID) -> VirtualKey:
    """Load a key that the caller may change.

    Raises `NotFound`, `NotPermitted`.
    """
    key = await queries.key_by_id(work.session, organization_id, key_id)
    require(work.caller, Action.KEYS_WRITE, queries.target_of(key), "key")
    return key


async def _change_state(
    work: Work, key: VirtualKey, state: KeyState, action: str, reason: str | None
) -> None:
    before = facts(key)
    key.state = state
    await work.session.flush()
    record(
        work,
        action,
        key,
        organization_id=key.organization_id,
        before=before,
        after=facts(key),
        reason=reason,
    )
    await key_changed(work, key.organization_id, key.id, policy=False)


def _with_owner(work: Work, organization_id: UUID, new: NewKey) -> NewKey:
    """Put a key into the team of one who reaches no farther, and make a plain member its owner."""
    membership = work.caller.membership
    reach = work.caller.reach(Action.KEYS_WRITE, organization_id)
    if reach is Reach.ORGANIZATION or membership is None:
        return new
    # Outside of it the key would spend past the limits of the team.
    new = replace(new, team_id=new.team_id or membership.team_id)
    if reach is Reach.OWN and new.member_id is None:
        return replace(new, member_id=membership.member_id)
    return new


def _fingerprinted(new: NewKey) -> dict[str, Any]:
    return {"operation": "key.create", **asdict(new)}


async def check_owner(
    work: Work, organization_id: UUID, *, team_id: UUID | None, member_id: UUID | None
) -> None:
    """Check that team and member exist, and that a caller of limited reach names its own.

    Raises `NotFound`, `NotPermitted`.
    """
    if team_id is not None:
        await team_by_id(work.session, organization_id, team_id)
        _require_team_or_own(work, Target(organization_id, team_id=team_id))
    if member_id is not None:
        member = await member_by_id(work.session, organization_id, member_id)
        owner = Target(organization_id, team_id=member.team_id, member_id=member.id)
        require(work.caller, Action.KEYS_WRITE, owner, "member")


def _require_team_or_own(work: Work, team: Target) -> None:
    membership = work.caller.membership
    is_own_team = membership is not None and membership.team_id == team.team_id
    if not is_own_team:
        require(work.caller, Action.KEYS_WRITE, team, "team")


async def _insert(
    work: Work, organization_id: UUID, new: NewKey, pool_ids: list[str] | None
) -> tuple[VirtualKey, str]:
    kind = SecretKind.TEST_KEY if new.is_test else SecretKind.LIVE_KEY
    secret = new_secret(kind, work.installation.random_bytes)
    key = VirtualKey(
        id=work.new_id(),
        organization_id=organization_id,
        name=checked_text(new.name, "name", KEY_NAME_LENGTH_MAX),
        team_id=new.team_id,
        member_id=new.member_id,
        cost_center_id=new.cost_center_id,
        state=KeyState.ACTIVE,
        expires_at=checked_expiry(work, new.expires_at),
        prefix=secret[: len(kind.value) + SHOWN_DIGITS],
        last_four=secret[-4:],
        tags=checked_tags(new.tags),
        pool_ids=pool_ids,
        created_by=work.caller.user_id,
        created_at=work.now,
    )
    work.session.add(key)
    await work.session.flush()
    await insert_secret(work, key, secret)
    return key, secret


async def insert_secret(work: Work, key: VirtualKey, secret: str) -> None:
    """Let a key be used with a secret."""
    row = KeySecret(
        id=work.new_id(),
        organization_id=key.organization_id,
        key_id=key.id,
        digest=digest(secret, work.installation.pepper),
        created_at=work.now,
    )
    work.session.add(row)
    await work.session.flush()


async def _set_rules(work: Work, key: VirtualKey, new: NewKey) -> None:
    await set_new_key_rates(
        work,
        key.organization_id,
        key.id,
        requests_per_minute=new.requests_per_minute,
        tokens_per_minute=new.tokens_per_minute,
    )
    target = Target(key.organization_id, team_id=key.team_id, member_id=key.member_id)
    await set_new_key_rule(work, target, key.id, models=new.allowed_models, agent=new.agent)


def checked_expiry(work: Work, expires_at: datetime | None) -> datetime | None:
    """Accept an instant in the future, or None for never.

    Raises `InvalidInput`.
    """
    if expires_at is not None and expires_at <= work.now:
        raise InvalidInput("Must be in the future.", field=("expiresAt",))
    return expires_at


def checked_tags(tags: dict[str, str]) -> dict[str, str]:
    """Accept labels of a key.

    Raises `InvalidInput`.
    """
    if len(tags) > TAGS_MAX:
        raise InvalidInput(f"At most {TAGS_MAX} tags.", field=("tags",))
    return {
        checked_text(name, "tags", TAG_NAME_LENGTH_MAX): checked_text(
            value, "tags", TAG_VALUE_LENGTH_MAX
        )
        for name, value in sorted(tags.items())
    }
