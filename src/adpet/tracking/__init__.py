"""What becomes of a result: MLflow's runs, its registry of models, and what each was made from."""
