"""Simulated cohort: anatomy, scanners, layouts, planted defects, validation."""
