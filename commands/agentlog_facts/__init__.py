"""The language of the log: facts, the envelope of a commit, the guard, wire names, errors, and the ports.

A fact states an event in the life of one aggregate (a thread, an assistant, ...). A commit is one Kafka record with
1..n facts of one stream, atomically. Every room imports this package; it imports no other room.
"""
