from langgraph.pregel.main import Pregel as Pregel
