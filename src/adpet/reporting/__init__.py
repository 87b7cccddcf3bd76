"""Reporting: figures, the HTML report and the model card."""
