"""An engine in a child process: the server survives its death, and starts it again."""
