# Two commands do all the set-up on a machine with Python 3.11 to 3.13, pip and PyPI: `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: quickstart test test-slow notebooks docs browser lint types format accuracy benchmark wheel clean

quickstart: $(VENV)/.installed
	$(BIN)/tfft quickstart

# Everything a pull request needs: lint, types, tests. Under 10 minutes on 2 cores.
test: lint types
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile

# The rest: accuracies on public data sets, the wheel in an empty environment. Up to an hour on 2 cores.
test-slow: $(VENV)/.installed-test browser
	$(BIN)/python -m pytest -m slow $(PYTEST)

# The course, each notebook from top to bottom, kept with what it printed and drew. About 15 minutes on 2 cores.
notebooks: $(patsubst notebooks/%,build/notebooks/%,$(wildcard notebooks/*.ipynb))

build/notebooks/%.ipynb: notebooks/%.ipynb | $(VENV)/.installed-test
	@mkdir -p $(@D)
	$(BIN)/jupyter-execute --timeout=600 --output=../$(basename $@) $<

# The site, English and Chinese, in build/site: a warning is an error. (Its theme announces its successor; it is asked not to.)
docs: notebooks
	$(BIN)/python website/pages.py build/notebooks build/website
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file website/mkdocs.yml
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file website/zh.yml
	@echo "the site is in build/site: $(BIN)/python -m http.server --directory build/site"

# For the page's test, which is skipped, visibly, where a browser is not there and cannot be installed.
browser:
	@command -v chromedriver chromium >/dev/null || \
		{ command -v apt-get >/dev/null && apt-get update -q && apt-get install -qy chromium chromium-driver; } || \
		echo "no chromium: the page's test will be skipped"

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-test
	$(BIN)/mypy

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The accuracies in README and docs, on the data sets of a folder: make accuracy DATA=../shared/data
DATA ?= ../shared/data
accuracy: $(VENV)/.installed
	$(BIN)/python benchmarks/accuracy.py --data $(DATA)

# How fast tfft is beside its peers, for hours; it goes on where it was stopped. make benchmark BENCHMARK="--only a --limit 500"
PEERS := benchmarks/.venv-peers
benchmark: $(VENV)/.installed $(PEERS)/.installed
	$(BIN)/python benchmarks/speed.py --data $(DATA) --peers-python $(PEERS)/bin/python \
		--model "$${MODEL:-$$($(BIN)/python -c 'import tfft.backbones; print(tfft.backbones.resolve())')}" \
		--results benchmarks/speed.jsonl --out benchmarks/speed.md $(BENCHMARK)

$(PEERS)/.installed: benchmarks/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --requirement $<
	touch $@

wheel: $(VENV)/.installed-test
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@ $(VENV)/.installed
