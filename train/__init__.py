"""Training: `python -m train --help`. Data in, a folder laid out like a Hub repo out."""
