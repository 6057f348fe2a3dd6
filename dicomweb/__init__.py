"""DICOMweb in: STOW-RS. Translates, decides nothing."""
