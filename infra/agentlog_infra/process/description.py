"""Description of this process for the log."""

import os
from socket import gethostname

from agentlog_facts.json_value import JsonObject
from agentlog_facts.version import VERSION


def describe_process(name: str) -> JsonObject:
    """Return name, host, pid and version of agentlog of this process."""
    return {"name": name, "host": gethostname(), "pid": os.getpid(), "version": VERSION}
