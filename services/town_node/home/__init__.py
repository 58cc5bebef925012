"""What is about the whole node: today, how it stands with the association, how a circle begins and leaves.

Read `sync` first, then `alarm`, `erasures`, `setup` and `leaving`; `pages` and `doors` show them.
"""
