"""Cohort: collections of scans, their metadata, and splits by subject."""
