"""Commands: pure decisions on the state of an aggregate, and `submit`, the only function with effects.

To add a command, write a frozen dataclass with `decide(state) -> Accepted | Refused` in the file of its noun, its
endpoint in the gateway, and a given/when/then test in tests/commands.
"""
