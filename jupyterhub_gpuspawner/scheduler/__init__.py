"""The scheduler: pure decisions about who gets which GPU.

Standard library only: no I/O, no clock, no logging.
"""
