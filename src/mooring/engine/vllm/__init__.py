"""The cluster engine: vLLM workers, and the connector that lives inside them."""
