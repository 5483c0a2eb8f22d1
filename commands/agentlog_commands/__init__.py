"""The verbs: what may be asked of an aggregate, decided purely, and `submit`, the only function that has effects.

To add one: a frozen dataclass with `decide(state) -> Accepted | Refused` beside its noun, its route in the gateway,
and a given/when/then sentence in tests/commands.
"""
