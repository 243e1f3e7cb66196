"""From a document to a Book."""
