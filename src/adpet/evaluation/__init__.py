"""Evaluation: metrics per subject with uncertainty, baselines, and leakage."""
