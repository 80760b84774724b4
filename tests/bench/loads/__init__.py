"""What puts load on real servers and says how they bore it."""
