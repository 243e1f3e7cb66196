"""Ways of being long that can be measured with the same tasks."""
