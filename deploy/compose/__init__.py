"""What ``deploy/compose/up`` does in Python: the env file with its secrets, and the images."""
