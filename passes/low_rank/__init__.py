"""Layers as products of smaller layers: how they are described, found, chosen and put in place."""
