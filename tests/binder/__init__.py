"""Tests of the demonstration on a Binder."""
