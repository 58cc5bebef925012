"""The towns and their circles, and the national view that puts everything together. Read `projection`, then `pages`."""
