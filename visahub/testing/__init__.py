"""Fakes of visahub's parts, and a clock; for our tests and for those of facilities."""
