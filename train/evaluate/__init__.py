"""How good a model's images are: judges, the figures they give, and the comparison of samplers."""
