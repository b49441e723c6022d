"""The control plane: tenancy, policy, prices, ledger and the GraphQL API over them."""
