"""Inference: one scan in, one answer out, without Keras or MLflow."""
