"""Decides how a role process begins: it loads its code at once, then waits until it is told where the servers are.

`python -m agentlog_infra.launch GO_FD PRELOAD MODULE ARGUMENT...`: importing a role takes a second or two, the servers
take as long to start; so both happen side by side. PRELOAD may be "-". One JSON object of variables comes on GO_FD.
"""

import json
import os
import runpy
import sys
from importlib import import_module


def main() -> None:
    """Load, wait, run MODULE as if it had been started itself; exit 1 if nobody is left to say go."""
    go_fd, preload, module = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    if preload != "-":
        import_module(preload)
    with os.fdopen(go_fd) as pipe:
        said = pipe.readline()
    if not said.endswith("\n"):
        sys.exit(1)
    os.environ.update(json.loads(said))
    sys.argv[1:] = sys.argv[4:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
