"""Checks of data before a training: paths, annotations, images, classes; what to say of errors."""
