"""Typed settings and TOML profiles: what a person may choose, checked before anything runs."""
