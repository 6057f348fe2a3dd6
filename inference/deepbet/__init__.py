"""The engine ``deepbet``: the intracranial space in T1 MR by two small networks (PyTorch)."""
