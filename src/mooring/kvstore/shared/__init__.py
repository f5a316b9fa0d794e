"""The shared tier: where contexts stay when an engine ends, and any other engine finds them."""
