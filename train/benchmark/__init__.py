"""How fast training and sampling are, beside diffusers."""
