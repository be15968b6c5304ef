"""What a finished run gives to others: the folder, its card, the layout of diffusers, the push to
the Hub."""
