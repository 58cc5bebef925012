"""The national library of lessons. Read `projection`, then `pages`."""
