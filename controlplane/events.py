"""What the control plane tells the rest of its process after a change has been committed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class OrganizationChanged:
    """Policy or keys of an organization changed; whoever decides for it must load them again.

    `key_ids` names the keys that changed, none with `policy` meaning all; `policy` says whether
    limits or rules did.
    """

    organization_id: UUID
    key_ids: tuple[UUID, ...] = ()
    policy: bool = True

    def merged(self, other: OrganizationChanged) -> OrganizationChanged:
        """Join two changes of one organization; all keys and some are all."""
        key_ids = tuple(dict.fromkeys(self.key_ids + other.key_ids))
        if self.names_all_keys or other.names_all_keys:
            key_ids = ()
        policy = self.policy or other.policy
        return OrganizationChanged(self.organization_id, key_ids, policy=policy)

    @property
    def names_all_keys(self) -> bool:
        """Whether every key may have changed: a change of policy that names none."""
        return self.policy and not self.key_ids


Listener = Callable[[OrganizationChanged], Awaitable[None]]
# Told that limits of the installation or of a provider changed.
InstallationListener = Callable[[], Awaitable[None]]


class Events:
    """Delivers changes to every listener of this process before the change is answered."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._installation_listeners: list[InstallationListener] = []

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` for every change from now on."""
        self._listeners.append(listener)

    async def publish(self, change: OrganizationChanged) -> None:
        """Tell all listeners; returns when each has taken the change in."""
        for listener in self._listeners:
            await listener(change)

    def subscribe_installation(self, listener: InstallationListener) -> None:
        """Call `listener` whenever a limit beyond organizations changes from now on."""
        self._installation_listeners.append(listener)

    async def publish_installation(self) -> None:
        """Tell that limits beyond organizations changed; returns when all have taken it in."""
        for listener in self._installation_listeners:
            await listener()
