"""Command lines: ``mmdla COMMAND`` and ``tools/*.py`` call the same functions."""
