"""Use of a trained model: prediction, export, folding for inference, the model zoo."""
