PYTHON ?= python3
VENV_PYTHON := .venv/bin/python

# Without MMDLA_CUDA=1 mmcv is compiled for the CPU only, and detectors need its ops.
ifneq ($(MMDLA_CUDA),1)
export CUDA_VISIBLE_DEVICES :=
endif

.PHONY: help setup demo report test lint format docs clean setup-openmmlab test-openmmlab lock audit

help:
	@echo 'make demo    set up, train a DLA Faster R-CNN on photographs, show what it finds'
	@echo 'make report  what its layer attention does, as a page for the browser'
	@echo 'make test    set up, lint, run every test'
	@echo 'make setup   only prepare .venv (the pinned stack of requirements/onedl.txt)'
	@echo 'make test-openmmlab   the tests on the upstream stack, in .venv-openmmlab'
	@echo 'make lint    check style and types;  make format  correct the style'
	@echo 'make docs    build the site of docs/ in site/'
	@echo 'With MMDLA_CUDA=1 mmcv is compiled for the GPU too, which needs nvcc'
	@echo 'make lock    pin what requirements/*.in ask for, with hashes;  make audit  known vulnerabilities in it'
	@echo 'make clean   remove the environments and work_dirs; the built mmcv stays in the cache'

setup:
	@$(PYTHON) dev/setup/bootstrap.py

demo: setup
	@$(VENV_PYTHON) projects/demo/run.py

report: setup
	@$(VENV_PYTHON) projects/demo/report.py

test: lint
	@$(VENV_PYTHON) -m pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart 0

lint: setup
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m mypy

format: setup
	@$(VENV_PYTHON) -m ruff check --fix .
	@$(VENV_PYTHON) -m ruff format .

setup-openmmlab:
	@$(PYTHON) dev/setup/bootstrap.py openmmlab

test-openmmlab: setup-openmmlab
	@.venv-openmmlab/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# Tools of the maintainer and the site's builder, in environments of their own.
.venv-maintain/made .venv-docs/made: .venv-%/made: requirements/%.txt
	@$(PYTHON) -m venv --clear .venv-$*
	@.venv-$*/bin/pip install --quiet --require-hashes -r requirements/$*.txt
	@touch $@

docs: .venv-docs/made
	@.venv-docs/bin/mkdocs build --strict --quiet

lock: .venv-maintain/made
	@.venv-maintain/bin/python dev/setup/lock.py $(LOCK_OPTIONS)

audit: .venv-maintain/made
	@.venv-maintain/bin/python dev/setup/audit.py

clean:
	rm -rf .venv .venv-openmmlab .venv-maintain .venv-docs work_dirs site
