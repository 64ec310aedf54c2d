"""The instance network that teachers and students share: FCOS with a dynamic mask head."""
