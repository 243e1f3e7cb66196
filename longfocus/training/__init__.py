"""Teaching models to use memory."""
