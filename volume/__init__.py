"""From instances to verified volumes and back. Pure computation."""
