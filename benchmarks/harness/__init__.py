"""What the benchmarks share: models, prompts, servers, clients, figures. Each knows one thing."""
