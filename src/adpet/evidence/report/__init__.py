"""The report on a model: one page of HTML that a reviewer reads alone, and the same facts as a model card."""
