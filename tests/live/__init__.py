"""The real kernel: what a program under meshfd sees, compared with what it sees without."""
