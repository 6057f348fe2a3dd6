"""DIMSE in: C-ECHO, C-STORE and storage commitment. Translates, decides nothing."""
