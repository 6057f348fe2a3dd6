"""Instances on disk (Part 10, fsync, rename) and the index. Keeps, decides nothing."""
