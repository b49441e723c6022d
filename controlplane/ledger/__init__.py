"""The ledger: one decision record per request, one append-only entry per settled one."""
