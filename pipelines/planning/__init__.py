"""What a run works on: its plan, shard by shard, and the categories that it made."""
