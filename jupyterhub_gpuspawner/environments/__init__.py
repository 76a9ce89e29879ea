"""Images from ``environment.yml`` files: each file is an environment, and a kernel, of its own."""
