"""The language of the log: what a fact is, how a commit is judged, and the ports to the world.

A fact says that something has happened to one aggregate (a thread, an assistant, ...). Facts travel in commits: one
Kafka record holds 1..n facts of one stream, atomically. Every room imports this package; it imports nobody.
"""
