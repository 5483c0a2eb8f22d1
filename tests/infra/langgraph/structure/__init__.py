"""Tests of the structure of graphs."""
