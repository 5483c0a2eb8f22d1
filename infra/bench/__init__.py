"""The figures of agentlog: what it does a second, how long it takes, what it costs. Not part of the wheel."""
