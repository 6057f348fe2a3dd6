"""MedSAM2: promptable segmentation in 3-D, SAM 2.1 (Hiera-Tiny) at 512 pixels. The weights are the operator's."""
