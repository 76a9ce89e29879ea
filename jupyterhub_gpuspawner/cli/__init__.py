"""The command ``jupyterhub-gpuspawner``: what an admin does beside the running Hub."""
