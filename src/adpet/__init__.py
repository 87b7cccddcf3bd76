"""Alzheimer's disease from FDG-PET: from a folder of NIfTI scans to a registered, explained model."""
