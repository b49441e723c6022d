"""Reads of access tokens, and who may look after them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, false, or_, select

from controlplane.access.models import AccessToken
from controlplane.authz import Action, Caller, Reach


def may_manage(caller: Caller, row: AccessToken) -> bool:
    """Tell whether a caller may see and revoke a token: its own, an admin all of its people's."""
    if row.member_id is None or row.organization_id is None:
        return caller.operator and row.user_id == caller.user_id
    return may_manage_those_of(caller, row.organization_id, row.member_id)


def may_manage_those_of(caller: Caller, organization_id: UUID, member_id: UUID) -> bool:
    """Tell whether a caller may see and revoke the tokens of a member."""
    membership = caller.membership
    if membership is not None and membership.member_id == member_id:
        return True
    return caller.reach(Action.MEMBERS_WRITE, organization_id) is Reach.ORGANIZATION


def tokens_of_members(organization_id: UUID) -> Select[AccessToken]:
    """Select the tokens that stand for members of an organization."""
    return select(AccessToken).where(AccessToken.organization_id == organization_id)


def own_tokens(caller: Caller) -> Select[AccessToken]:
    """Select the tokens that stand for the caller as it is here: this member, or this operator."""
    if caller.membership is not None:
        membership = caller.membership
        inside = tokens_of_members(membership.organization_id)
        return inside.where(AccessToken.member_id == membership.member_id)
    is_own = and_(AccessToken.user_id == caller.user_id, AccessToken.member_id.is_(None))
    return select(AccessToken).where(is_own if caller.operator else false())


def is_usable(now: datetime) -> ColumnElement[bool]:
    """Write as a condition that a token is neither revoked nor expired."""
    is_going_on = or_(AccessToken.expires_at.is_(None), AccessToken.expires_at > now)
    return and_(AccessToken.revoked_at.is_(None), is_going_on)
