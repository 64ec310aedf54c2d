"""The command line: parse, make a config, one call into pipelines, print."""
