"""One file per stage: it binds library calls to shard files."""
