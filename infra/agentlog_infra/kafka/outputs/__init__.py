"""The log of stream frames on the topic `outputs`."""
