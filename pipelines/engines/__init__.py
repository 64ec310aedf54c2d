"""Where shards run. An engine maps shards to workers and does not know what done means."""
