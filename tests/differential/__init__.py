"""Compare what a program sees under meshfd with what it sees without, over random sequences."""
