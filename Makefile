# Every target sets up what it needs: a virtual environment in VENV and a release build of the Rust core.
# VENV and CARGO_TARGET_DIR may point outside the clone, so that repeated clean clones reuse them.
PYTHON ?= python3
VENV ?= $(CURDIR)/.venv
export CARGO_TARGET_DIR ?= $(CURDIR)/target
export VIRTUAL_ENV := $(VENV)
export PYTHONPATH := $(CURDIR)/python

PY := $(VENV)/bin/python
CORE := python/recfm/_core.abi3.so
RUST := Cargo.toml Cargo.lock $(shell find rust -name '*.rs' -o -name Cargo.toml)
# The environment is marked ready under a name that changes with what it must hold.
DEPS := $(VENV)/.ready-$(shell cksum pyproject.toml | cut -d' ' -f1)
BENCH_DEPS := $(DEPS)-bench
THEMES := $(patsubst benches/bench_%.py,%,$(wildcard benches/bench_*.py))
TODAY := $(shell date +%Y-%m-%d)
DATA ?=
SEEDS ?= 5
# Sweeps have seeds of their own, unless some are asked for.
SEEDS_GIVEN = $(if $(filter-out file undefined,$(origin SEEDS)),--seeds $(SEEDS))
FUZZ_SECONDS ?= 120

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-rust test-python lint format bench kill reproduce reproduce-ml1m reproduce-frappe reproduce-scaling doctor clean

help: ## Show what each target does
	@grep -E '^[a-z0-9%-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(DEPS): pyproject.toml
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust (rustup) first"; exit 1; }
	@rustc --version | awk '{split($$2, v, "."); exit !(v[1] > 1 || v[2] >= 95)}' \
	  || { echo "recfm needs Rust 1.95 or newer: rustup update"; exit 1; }
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "recfm needs Python 3.11 or newer"; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -c "import tomllib; \
	  p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
	  print('\n'.join(p['dependencies'] + p['optional-dependencies']['dev']))" > $(VENV)/requirements.txt
	$(PY) -m pip install --quiet --disable-pip-version-check -r $(VENV)/requirements.txt
	@rm -f $(VENV)/.ready-*
	@touch $@

$(CORE): $(DEPS) $(RUST)
	$(VENV)/bin/maturin develop --quiet --release --skip-install
	@touch $@

setup: $(CORE) ## Create the environment and build the Rust core

demo: $(CORE) ## LoopFM on MovieLens 100K, events to report (fetches the data; DATA=folder if you have it)
	$(PY) -m recfm.cli demo $(if $(DATA),--data $(DATA))

test: test-rust test-python ## All tests

test-rust:
	cargo test --quiet

test-python: $(CORE)
	$(PY) -m pytest -q

lint: $(CORE) ## rustfmt, clippy, ruff, mypy
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	cargo clippy --quiet -p recfm-py -- -D warnings
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(DEPS) ## Format all code
	cargo fmt
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench: ## Every bench: Rust alone (criterion), then each theme against its peers (QUICK=1 for small data)
	cargo bench
	@for theme in $(THEMES); do $(MAKE) --no-print-directory bench-$$theme || exit 1; done

bench-%: $(CORE) $(BENCH_DEPS) ## One theme against its peers: batch, embedding, hash, history, metrics, scale, train; QUICK=1 for a minute
	POLARS_MAX_THREADS=2 RECFM_NUM_THREADS=2 $(PY) benches/bench_$*.py

$(BENCH_DEPS): $(DEPS)
	$(PY) -c "import tomllib; \
	  p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
	  print('\n'.join(p['optional-dependencies']['bench']))" > $(VENV)/bench.txt
	$(PY) -m pip install --quiet --disable-pip-version-check -r $(VENV)/bench.txt
	@touch $@

kill: $(CORE) ## Kill 200 processes that encode and 200 that append, at random moments; everything must be whole
	$(PY) benches/kill_encode.py 200
	$(PY) benches/kill_history.py 200

fuzz-%: ## Fuzz a target for FUZZ_SECONDS: states, tables, arrow, parts (needs cargo-fuzz)
	cd fuzz && RUSTC_BOOTSTRAP=1 cargo fuzz run $* -- -max_total_time=$(FUZZ_SECONDS) -timeout=10

reproduce: reproduce-ml1m reproduce-scaling ## The results on MovieLens 1M (DATA=folder) and the synthetic log; Frappe has a target of its own

reproduce-ml1m: $(CORE) ## The README's table: SEEDS=5, DATA=folder of ml-1m; about an hour, resumes if interrupted
	@mkdir -p benches/results
	$(PY) -m recfm.cli reproduce ml-1m $(if $(DATA),--data $(DATA)) --seeds $(SEEDS) --out runs/ml-1m_$(TODAY) --resume
	cp runs/ml-1m_$(TODAY)/report.json benches/results/loopfm-ml-1m_$(TODAY).json
	cp runs/ml-1m_$(TODAY)/report.png benches/results/loopfm-ml-1m_$(TODAY).png

reproduce-frappe: $(CORE) ## The benchmark on Frappe_x1, five seeds: DATA=folder of its files; goes on if interrupted
	@test -n "$(DATA)" || { echo "Frappe cannot be fetched: make reproduce-frappe DATA=FOLDER"; exit 1; }
	@mkdir -p benches/results
	$(PY) -m recfm.cli reproduce frappe --data $(DATA) $(SEEDS_GIVEN) --out runs/frappe
	cp runs/frappe/results.json benches/results/frappe_$(TODAY).json
	cp runs/frappe/table.md benches/results/frappe_$(TODAY).md

reproduce-scaling: $(CORE) ## The scaling laws: the synthetic log and, with DATA=folder of ml-1m, MovieLens 1M; goes on too
	@mkdir -p benches/results
	$(PY) -m recfm.cli reproduce scaling $(if $(DATA),--data $(DATA)) $(SEEDS_GIVEN) --out runs/scaling
	@for name in synthetic $(if $(DATA),ml-1m); do \
	  cp runs/scaling/$$name/results.json benches/results/scaling-$${name}_$(TODAY).json; \
	  cp runs/scaling/$$name/scaling.png benches/results/scaling-$${name}_$(TODAY).png; done

doctor: $(CORE) ## What recfm finds on this machine
	$(PY) -m recfm.cli doctor

clean: ## Remove what was built here
	rm -rf target .venv build dist $(CORE)
