"""One scan in, one answer out: an exported model, without Keras, MLflow or the training's data."""
