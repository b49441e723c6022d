"""Access tokens: how people and programs authenticate to the control plane."""
