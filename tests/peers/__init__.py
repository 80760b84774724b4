"""Real daemons and clients under meshfd."""
