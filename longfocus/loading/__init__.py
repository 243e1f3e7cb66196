"""Getting models onto this machine and into memory."""
