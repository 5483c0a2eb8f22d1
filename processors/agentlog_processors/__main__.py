"""Entry point: `python -m agentlog_processors ROLE[,ROLE...] [--ready-fd N]`, or the name of a job (see JOBS)."""

import sys
from importlib import import_module

JOBS = ("migrate", "rebuild", "projection")


def main() -> None:
    """Run the named job, else the roles."""
    words = sys.argv[1:]
    if words and words[0] in JOBS:
        import_module(f"agentlog_processors.jobs.{words[0]}").main(words[1:])
    else:
        from agentlog_processors.main import main as run_roles

        run_roles(words)


if __name__ == "__main__":
    main()
