"""Brings a traced graph to the dialect: one spelling for every operator, nothing written in place."""
