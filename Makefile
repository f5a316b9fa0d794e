# The tasks, each a line or two; CI runs the same words.
BIN := .venv/bin

.PHONY: check fix test test-vllm test-connector serve bench

check: ; $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
fix:   ; $(BIN)/ruff check --fix . ; $(BIN)/ruff format .
test:  ; $(BIN)/pytest
test-vllm:
	$(BIN)/pytest --engine vllm -m ""
test-connector:
	$(BIN)/pytest tests/contract/vllm tests/contract/test_*tier*.py -k "vllm or mooncake"
serve: ; $(BIN)/mooring serve
bench:
	$(BIN)/pip install -q -e '.[bench]'
	$(BIN)/python benchmarks/ttft.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/overhead.py --shape demo
	$(BIN)/python benchmarks/sharing.py
	$(BIN)/python benchmarks/sharing.py --shape demo --tokens 16384
	$(BIN)/python benchmarks/turns.py
	$(BIN)/python benchmarks/pressure.py
	$(BIN)/python benchmarks/restart.py
	$(BIN)/python benchmarks/engine_process.py
	$(BIN)/python benchmarks/gateway.py
