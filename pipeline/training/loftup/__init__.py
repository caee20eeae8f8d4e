"""Training of LoftUp for any dense backbone; `scripts/train_loftup.py` is its program."""
