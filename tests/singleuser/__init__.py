"""Tests of what runs inside an instance."""
