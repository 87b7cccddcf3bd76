"""One module a DVC stage, each with ``run``: read artifacts, compute, write artifacts, log."""
