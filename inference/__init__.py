"""Engines, their manifests and the registry that finds them. Computes, knows no wire."""
