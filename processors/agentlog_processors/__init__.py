"""Worker and housekeeper: services that react to facts, act, and append the results.

Delivery is at least once. Each duty may run twice, in two processes at the same time; the guard accepts one outcome.
To add a duty, write a module named verb + noun with a `Service`, add it to `main.py`, and test its commands.
"""
