"""Evaluations: tasks made up or read from files, subjects that take them, a runner that keeps every answer."""
