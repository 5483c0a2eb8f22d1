"""What pyright cannot read out of langgraph 1.2: there these two packages have types, but with unknowns in them."""

from langgraph.constants import END as END, START as START
from langgraph.graph.message import MessagesState as MessagesState, add_messages as add_messages
from langgraph.graph.state import StateGraph as StateGraph
