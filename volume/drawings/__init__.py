"""What people draw in DICOM objects (SR, GSPS, RTSTRUCT, SEG), read as prompts. Pure: datasets in, nouns out.

``reading.read_sketch`` reads a dataset, ``placing.prompt_on`` puts what was drawn on a stack.
"""
