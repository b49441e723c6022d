"""The tenant budget: guardrails of an organization set as one object."""
