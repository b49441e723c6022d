"""All tables of the product: importing this module makes the metadata complete."""

from __future__ import annotations

from controlplane.access import models as _access
from controlplane.audit import models as _audit
from controlplane.breakers import models as _breakers
from controlplane.calibrations import models as _calibrations
from controlplane.db import Row
from controlplane.exchange import models as _exchange
from controlplane.keys import models as _keys
from controlplane.ledger import models as _ledger
from controlplane.limits import models as _limits
from controlplane.plans import models as _plans
from controlplane.policies import models as _policies
from controlplane.pools import models as _pools
from controlplane.tenancy import models as _tenancy
from controlplane.tenant_budgets import models as _tenant_budgets
from controlplane.wallets import models as _wallets

METADATA = Row.metadata
MODULES = (
    _access,
    _audit,
    _breakers,
    _calibrations,
    _exchange,
    _keys,
    _ledger,
    _limits,
    _plans,
    _policies,
    _pools,
    _tenancy,
    _tenant_budgets,
    _wallets,
)
