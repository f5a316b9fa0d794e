"""An engine that drives vLLM workers over HTTP."""
