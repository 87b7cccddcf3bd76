"""Imaging: arrays, affines and NIfTI files, in RAS+ world millimetres."""
