"""What was measured: arrays, affines and NIfTI files, in RAS+ world millimetres; no subjects here."""
