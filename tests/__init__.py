"""The test suite: one module for each module of meshfd, and live/, peers/ and bench/."""
