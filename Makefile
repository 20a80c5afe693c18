# make demo   sets up, then answers 120 composed queries over 2,000 drawn products and shows six
# make test   sets up, then runs the tests, a process on every core
# make check  lint, types, layers, Dockerfiles
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check clean

demo: .venv/runtime
	$(BIN)/qdrant-cir demo

test: .venv/dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile docker/Dockerfile.gpu

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "qdrant-cir needs Python 3.11 or newer; run: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/runtime: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu,service]'
	@touch $@

.venv/dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ .venv/runtime

clean:
	rm -rf .venv demo dist build
