"""How a run's config is made of files, flags and KEY VALUE pairs, and what it must keep to."""
