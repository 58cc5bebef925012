"""The association's hub: stores what the towns tell, folds it into the national view, and forwards it to the other towns.

Read `worker` (what happens to a message), `forwarding`, then a slice such as `lessons`: its `projection`, its `pages`.
"""
