"""Our own testbed: real Docker engines with CDI and simulated devices, without a registry.

``rootfs`` makes the root file systems, ``engine`` starts and stops engines in them, ``images``
fills them, ``python -m tests.testbed up|down|status|fetch`` does the same from a shell.
"""
