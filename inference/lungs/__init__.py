"""The engine ``lungs``: left and right lung in CT by thresholds and morphology; no weights, nothing random."""
