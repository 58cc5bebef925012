"""A town's node: the circle's own screens, its log, and what it learned from other towns. It works when the hub is off (R35).

Read a slice such as `lessons` (`model`, `actions`, `pages`), then `worker` (how the log reaches the association).
"""
