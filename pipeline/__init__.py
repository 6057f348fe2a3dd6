"""Every decision: intake, completeness, routes, the workflow of one job and its durable engine."""
