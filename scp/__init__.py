"""DIMSE in: C-ECHO and C-STORE. Translates, decides nothing."""
