"""What we ask of Docker."""
