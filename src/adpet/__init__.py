"""Alzheimer's disease from FDG-PET: from NIfTI scans to a model."""
