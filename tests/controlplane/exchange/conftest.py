"""Records to book."""

from tests.controlplane.ledger.conftest import admitted_at_ns, make_record, organization_id

__all__ = ["admitted_at_ns", "make_record", "organization_id"]
