"""A bundle of all that an installation needs, for a machine without any registry."""
