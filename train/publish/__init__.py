"""What others get of a finished run: a folder with a card, the layout of diffusers, a Hub repo."""
