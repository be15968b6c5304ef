"""How fast this program is, beside diffusers: `training` and `sampling`, a command each."""
