"""Virtual keys: what applications authenticate with."""
