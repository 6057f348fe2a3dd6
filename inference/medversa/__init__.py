"""MedVersa: a generalist for chest X-ray, dermatology and CT, written anew from its published sizes and numbers.

No code and no weights of the original are here: both carry a licence for non-commercial research only. The operator
names a checkpoint and accepts that licence. Modules that import torch are imported on use.
"""
