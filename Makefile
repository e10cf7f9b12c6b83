# Two commands are enough to begin: `make demo` and `make test`. Both set up what they need, here in .venv.
PYTHON ?= python3.11
# A place where pip finds PyTorch's CPU wheel; see docs/operations.md. Empty: pip's own configuration decides.
PIP_ARGS ?=
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: setup demo test lint types imports vectors bench bench-search crash crash-long corrupt corrupt-short corrupt-long sanitize clean
.DEFAULT_GOAL := help

help:
	@echo "make setup    create .venv and install pinned dependencies"
	@echo "make demo     the main job end to end, on real parts, in ./demo-deployment"
	@echo "make test     all tests, with branch coverage"
	@echo "make lint     ruff: style and formatting"
	@echo "make types    mypy, strict"
	@echo "make imports  which package may import which"
	@echo "make vectors  the sealed formats' test vectors, checked by the auditors' own program"
	@echo "make bench    ratios against the unprotected baseline; writes benchmarks/results/"
	@echo "make bench-search  a query on sealed vectors beside exact search and other systems (about an hour, quiet machine)"
	@echo "make crash    300 deaths under load (or what fits 8 minutes), and what is left each time; crash-long: 3,000"
	@echo "make corrupt  2,000 damaged deployments, each noticed; corrupt-short: 400, always the same; corrupt-long: 20,000"
	@echo "make sanitize  the compiled code under AddressSanitizer and UndefinedBehaviorSanitizer, with random calls"
	@echo "make clean    remove .venv, caches and the demo's deployment"

setup: $(STAMP)

$(STAMP): pyproject.toml requirements.lock hatch_build.py $(wildcard secure_embed/bulk/*.[ch])
	@echo "==> creating .venv and installing the pinned dependencies (a few minutes, once)"
	@test -d .venv || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --no-deps -e .
	@$(BIN)/python -c "from secure_embed.bulk import compiled; print('==> vectors are opened by', compiled() or 'Python alone, more slowly: no C compiler or no OpenSSL headers (docs/operations.md)')"
	@touch $(STAMP)

demo: setup
	@$(BIN)/secure-embed demo

test: setup
	@echo "==> running the tests"
	@$(BIN)/python -m pytest --cov --cov-report=term

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup
	@$(BIN)/mypy

imports: setup
	@$(BIN)/lint-imports

vectors: setup
	@$(BIN)/python audit/check_vectors.py tests/vectors
	@$(BIN)/python audit/verify --vectors tests/vectors

bench: setup
	@$(BIN)/python benchmarks/main_job.py

bench-search: setup
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/search.py $(SEARCH_ARGS)

crash: setup
	@$(BIN)/python -m campaigns.crash --rounds 300 --seconds-max 480

crash-long: setup
	@$(BIN)/python -m campaigns.crash --rounds 3000 --out campaigns/results/crash-long.json

corrupt: setup
	@$(BIN)/python -m campaigns.corrupt --cases 2000

corrupt-short: setup
	@$(BIN)/python -m campaigns.corrupt --cases 400 --seed 20261125 --out build/corrupt-short.json

corrupt-long: setup
	@$(BIN)/python -m campaigns.corrupt --cases 20000 --out campaigns/results/corrupt-long.json

sanitize: setup
	@$(BIN)/python -m campaigns.sanitize --calls 20000

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* demo-deployment
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
