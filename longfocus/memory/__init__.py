"""Memories that outlive the process: books on disk."""
