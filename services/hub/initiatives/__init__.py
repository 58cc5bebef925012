"""The initiatives of all towns: the list, a page for each, and `drawing`, the map. Read `projection`, then `pages`."""
