"""What is wrong with an image or with a site, and what to do about it.

Facts are gathered first (``image_facts``, ``gather``), with a time limit each; then pure functions
judge them (``image_checks``, ``checks_…``). What could not be looked at is a finding of its own:
unknown is not fine.
"""
