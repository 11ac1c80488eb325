# Everything runs in .venv, made from the lock. `make train` and `make test` work from nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

unexport PYTHONDONTWRITEBYTECODE # where it is set, every process compiles torch anew, for ten seconds

.PHONY: train test compiled quick test-all test-cluster golden mutants torture fuzz bench lint format lock docs audit sbom clean

train: $(VENV)/installed
	$(BIN)/python train.py

# Files are shared out among all cores, the longest first; one file by itself is quicker without: pytest tests/FILE.
IN_PARALLEL := -n auto --dist loadfile --no-loadscope-reorder

test: $(VENV)/installed
	$(MAKE) --jobs=2 lint compiled
	$(BIN)/python -m pytest $(IN_PARALLEL)

compiled: $(VENV)/installed  # to bytecode, what most tests import: else all workers would begin with it side by side
	$(BIN)/python -c "import ddpm.preloaded"

QUICK := $(addprefix tests/,diffusion samplers networks data metrics report config)

quick: $(VENV)/installed  # what starts no runs and takes tenths of a second, while one works on it
	$(BIN)/python -m pytest $(IN_PARALLEL) -m "not slow and not cluster and not long" $(QUICK)

test-all: lint
	CHECK_EVERY_SHAPE=1 $(BIN)/python -m pytest $(IN_PARALLEL) -m "not cluster"

golden: $(VENV)/installed  # tests/golden/ anew, after a change that is meant to move the first steps of a run
	$(BIN)/python tests/curves.py

torture: $(VENV)/installed  # runs, evaluations and sweeps killed twenty times each, and gone on with
	$(BIN)/python -m pytest $(IN_PARALLEL) -m "slow or not slow" tests/training/test_resume.py tests/evaluation/test_killed.py tests/sweep

test-cluster: $(VENV)/installed  # a SLURM of two nodes on this machine; tests/cluster/slurm.py names what it needs
	$(BIN)/python -m pytest -m cluster tests/cluster

SECONDS := 60

fuzz: $(VENV)/installed  # SECONDS for each reader of foreign bytes, guided by coverage; findings go to fuzz/found
	$(BIN)/python fuzz/run.py $(SECONDS)

mutants: $(VENV)/installed  # faults planted one at a time; 1 where no test speaks; some hours on two cores
	$(BIN)/python mutants/run.py

BENCHMARKS := train_step sampling bound memory startup scaling

bench: $(VENV)/installed  # 25 minutes on two cores; denoising-diffusion-pytorch joins in if it is on PYTHONPATH
	for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py || exit 1; done

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.txt # a minute and a half faster than pip
	$(PIP) --require-hashes --requirement $(VENV)/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --requirement requirements.lock \
		|| $(PIP) --require-hashes --requirement requirements.lock
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

docs: .venv-docs/installed  # build/site/index.html: warnings are errors, links and anchors are checked
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

.venv-docs/installed: pyproject.toml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check "pip>=25.1"
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --group docs
	mkdir -p build  # without npm, browsers fetch the scripts that draw diagrams and search in files
	-cd build && tar -xzf $$(npm pack --silent mermaid@11) --strip-components 2 package/dist/mermaid.min.js
	-cd build && tar -xzOf $$(npm pack --silent iframe-worker@1) package/shim/index.js > iframe-worker.js
	rm -f build/*.tgz
	touch $@

audit: .venv-audit  # known vulnerabilities of what the lock names; asks PyPI
	.venv-audit/bin/pip-audit --requirement requirements.lock --disable-pip --require-hashes

sbom: .venv-audit  # sbom.json: a CycloneDX bill of materials of what the lock names
	.venv-audit/bin/cyclonedx-py requirements requirements.lock --output-reproducible --output-file sbom.json

.venv-audit:
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --disable-pip-version-check pip-audit cyclonedx-bom

# After a change of pyproject.toml's dependencies.
lock:
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --no-emit-find-links --no-annotate --output-file requirements.lock
