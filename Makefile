PYTHON ?= python3
VENV_PYTHON := .venv/bin/python

# Without MMDLA_CUDA=1 mmcv is compiled for the CPU only, and detectors need its ops.
ifneq ($(MMDLA_CUDA),1)
export CUDA_VISIBLE_DEVICES :=
endif

.PHONY: help setup demo report test lint format clean

help:
	@echo 'make demo    set up, train a DLA Faster R-CNN on photographs, show what it finds'
	@echo 'make report  what its layer attention does, as a page for the browser'
	@echo 'make test    set up, lint, run every test'
	@echo 'make setup   only prepare .venv (the pinned stack of requirements/onedl.txt)'
	@echo 'make lint    check style;  make format  correct it'
	@echo 'With MMDLA_CUDA=1 mmcv is compiled for the GPU too, which needs nvcc'
	@echo 'make clean   remove .venv and work_dirs; the built mmcv stays in the cache'

setup:
	@$(PYTHON) tools/setup/bootstrap.py

demo: setup
	@$(VENV_PYTHON) tools/demo/run.py

report: setup
	@$(VENV_PYTHON) tools/demo/report.py

test: lint
	@$(VENV_PYTHON) -m pytest -n auto --dist loadfile

lint: setup
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .

format: setup
	@$(VENV_PYTHON) -m ruff check --fix .
	@$(VENV_PYTHON) -m ruff format .

clean:
	rm -rf .venv work_dirs
