"""What meshfd costs, against nothing and against the least that interception can cost."""
