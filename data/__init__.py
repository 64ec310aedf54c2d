"""Label and class maps that ship with the tool; SOURCES.md says where each comes from."""
