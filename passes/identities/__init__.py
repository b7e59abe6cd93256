"""The rules of `eliminate-identities`, by what the operators do."""
