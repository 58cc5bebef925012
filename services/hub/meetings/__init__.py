"""What circles planned and what they held. Read `projection`, then `pages`."""
