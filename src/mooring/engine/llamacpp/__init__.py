"""The embedded engine: llama.cpp behind a continuous-batching scheduler of our own."""
