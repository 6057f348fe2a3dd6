"""Nouns, ports and errors. Pure: no I/O, no threads, no clock."""
