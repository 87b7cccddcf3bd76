"""Inference: one scan in, one answer out, without training libraries."""
