"""Brings an index of any earlier version up to date."""
