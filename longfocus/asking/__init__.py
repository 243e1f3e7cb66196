"""Questions to a Book: answers, and the passages they rest on."""
