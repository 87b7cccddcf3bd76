"""How do we know: metrics per subject with their uncertainty, baselines, and the figures that show them."""
