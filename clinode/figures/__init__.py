"""Pictures, one file a room."""
