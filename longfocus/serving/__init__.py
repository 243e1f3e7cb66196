"""Serving: Books and questions to them over HTTP, in the form of OpenAI's API."""
