"""One module per revision; a published one never changes."""
