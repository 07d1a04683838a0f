"""Parameters, multiply-adds and memory of models."""
