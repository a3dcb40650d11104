"""Other people's formats: what reads their folders, and what writes our models so that theirs read them."""
