# Everything runs in .venv, made from the lock. `make train` and `make test` work from nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: train test quick test-all torture fuzz bench lint format lock audit sbom clean

train: $(VENV)/installed
	$(BIN)/python train.py

# Files are shared out among all cores, the longest first; one file by itself is quicker without: pytest tests/FILE.
IN_PARALLEL := -n auto --dist loadfile --no-loadscope-reorder

test: lint
	$(BIN)/python -m pytest $(IN_PARALLEL)

QUICK := $(addprefix tests/,diffusion networks data metrics report config)

quick: $(VENV)/installed  # what starts no runs, while one works on it
	$(BIN)/python -m pytest $(IN_PARALLEL) $(QUICK)

test-all: lint
	$(BIN)/python -m pytest $(IN_PARALLEL) -m "slow or not slow"

torture: $(VENV)/installed  # runs, evaluations and sweeps killed twenty times each, and gone on with
	$(BIN)/python -m pytest $(IN_PARALLEL) -m "slow or not slow" tests/training/test_resume.py tests/evaluation/test_killed.py tests/sweep

FUZZED := checkpoint safetensors diffusers config metrics bound results record plan idx picture archive
SECONDS := 60

fuzz: $(VENV)/installed  # SECONDS for each reader of foreign bytes, guided by coverage; findings go to fuzz/found
	$(BIN)/python -c "import atheris" 2> /dev/null || $(BIN)/python -m pip install --quiet "atheris>=3"
	for name in $(FUZZED); do $(BIN)/python fuzz/run.py $$name $(SECONDS) || exit 1; done

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

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

audit: .venv-audit  # known vulnerabilities of what the lock names; asks PyPI
	.venv-audit/bin/pip-audit --requirement requirements.lock --disable-pip --require-hashes

sbom: .venv-audit  # sbom.json: a CycloneDX bill of materials of what the lock names
	.venv-audit/bin/cyclonedx-py requirements requirements.lock --output-reproducible --output-file sbom.json

.venv-audit:
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --disable-pip-version-check pip-audit cyclonedx-bom

# After a change of pyproject.toml's dependencies; needs uv.
lock:
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --no-emit-find-links --no-annotate --output-file requirements.lock
