"""One attempt at one shard, and the machine under it."""
