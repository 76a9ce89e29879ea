"""What ``./quickstart`` does in Python: engine, images, GPUs, password. The shell does the rest."""
