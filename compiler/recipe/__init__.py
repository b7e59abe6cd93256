"""Recipes: what to compile, from what, for what, and what must hold, in one TOML file."""
