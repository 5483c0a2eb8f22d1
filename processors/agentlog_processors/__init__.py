"""Duties that follow from facts: react, act on the world, append what happened.

Delivery: at least once. Every duty may run twice, in two processes at once; the guard lets one outcome through.
To add one: a module named verb + noun with a `Service`, its place in `main.py`, and tests that say what it does.
"""
