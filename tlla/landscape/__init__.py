"""The loss around a prompt: planes through it, and how flat it is."""
