"""What should exist, and who owns it, in SQL. Knows nothing of engines or bytes."""
