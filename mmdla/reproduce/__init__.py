"""Tables of models: what to run, what it will take, what came out (``tools/reproduce.py``)."""
