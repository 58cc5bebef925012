"""The doors of the protocol: joining, head exchange, feed. Towns call; the hub never does."""
