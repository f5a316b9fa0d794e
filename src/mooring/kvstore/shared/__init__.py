"""The shared tier: where contexts stay when an engine ends, and from where any other engine loads them."""
