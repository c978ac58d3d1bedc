# Everything runs in a virtual environment that is made on first use; set VENV to put it elsewhere.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
RUN = runs/digits
# Processes that run the tests.
JOBS ?= 2
# What is tested in two minutes: mathematics, selection of images, options, recipes, plans, rules, words and help.
QUICK = tests/ops tests/layers tests/test_grid.py tests/test_options.py tests/test_imports.py tests/test_lock.py \
	$(addprefix tests/data/test_,images.py sampling.py scan.py select.py evaluating.py facts.py record.py recorded.py table.py) \
	$(addprefix tests/training/test_,options.py plan.py recipes.py objective.py parameters.py evaluation.py) \
	$(addprefix tests/cli/test_,words.py help.py bad_options.py) tests/experiments/test_settings.py tests/experiments/test_tables.py

.PHONY: demo test test-quick oldest fault-tests browser-tests docs wheel check timm-tests bench format clean help

help:
	@echo "make demo           train on the embedded digits, evaluate, predict, look inside (about 5 minutes with set-up)"
	@echo "make test-quick     mathematics, selection, recipes, plans, rules: about two minutes"
	@echo "make test           all tests"
	@echo "make oldest         all tests on the oldest versions of the libraries that pyproject.toml allows"
	@echo "make fault-tests    kills, damage, full disks, dead workers and processes, done to real runs (a short form is in all tests)"
	@echo "make browser-tests  the attention page in Chromium (part of all tests where there is one)"
	@echo "make docs           the guides and the API as a site, in build/docs"
	@echo "make wheel          builds the wheel, and trains, inspects and exports with it alone, outside of the checkout"
	@echo "make check          formatting, lint, types"
	@echo "make bench          speed against plain attention and timm"
	@echo "make timm-tests     timm's own model tests, out of its source distribution, on our models"

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[test,dev]"
	@touch $@

demo: $(VENV)/installed
	$(BIN)/convit train digits --out $(RUN) --overwrite
	$(BIN)/convit evaluate $(RUN) digits
	$(BIN)/python examples/digit_images.py $(RUN)/test-images
	$(BIN)/convit predict $(RUN) $(RUN)/test-images --top-k 3
	$(BIN)/convit inspect $(RUN)
	$(BIN)/convit export $(RUN) --format web
	@echo
	@echo "Everything is in $(RUN): the model (model.safetensors, config.json), curves.png, gates.png, confusion.png,"
	@echo "metrics.jsonl, log.txt; the pictures that were just classified are in $(RUN)/test-images."
	@echo "What came of it: open $(RUN)/report.html in a browser; what every head looks at: $(RUN)/inspect/attention.html;"
	@echo "the classifier itself, to draw a digit on: $(RUN)/model.html."
	@echo "Next, with a folder of your own that has one sub-folder of photos per class:"
	@echo "    $(BIN)/convit check PHOTOS"
	@echo "    $(BIN)/convit train PHOTOS --out runs/photos"
	@echo "    $(BIN)/convit evaluate runs/photos PHOTOS"
	@echo "    $(BIN)/convit predict runs/photos PHOTO.jpg"
	@echo "    $(BIN)/convit inspect runs/photos PHOTO.jpg"

# One thread each, here and below: two processes of two threads on two cores would slow each other down many times over,
# and burn the processor's time that a test limits.
test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

test-quick: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) $(QUICK)

$(VENV)-oldest/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/pip install --quiet --upgrade pip
	$(PYTHON) tests/floors.py > $(VENV)-oldest/floors.txt
	$(VENV)-oldest/bin/pip install --quiet --constraint $(VENV)-oldest/floors.txt --editable ".[test]"
	@touch $@

oldest: $(VENV)-oldest/installed
	OMP_NUM_THREADS=1 $(VENV)-oldest/bin/python -m pytest -n $(JOBS)

# A quarter of an hour; prints its counts at the end.
fault-tests: $(VENV)/installed
	FAULTS=full OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults tests/training/test_distributed.py::test_killed_process

browser-tests: $(VENV)/installed
	$(BIN)/python -m pytest -m browser tests/browser

docs: $(VENV)/installed
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/docs
	@echo "open build/docs/index.html"

# Its libraries are those of the environment, whose own convit comes after PYTHONPATH.
wheel: $(VENV)/installed
	rm -rf build/lib build/bdist.* build/wheel
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir build/wheel .
	set -e; bin=$(abspath $(BIN)); new=$$(mktemp -d); trap "rm -rf $$new" EXIT; export PYTHONPATH=$$new/site; \
	$$bin/pip install --quiet --no-deps --target $$new/site build/wheel/*.whl; cd $$new; \
	$$bin/python -c "import convit; assert convit.__file__.startswith('$$new'), convit.__file__"; \
	$$bin/python -m convit train digits --per-class 20 --epochs 1 --out run; \
	$$bin/python -m convit inspect run; $$bin/python -m convit export run --format web
	@echo "the wheel is in build/wheel"

check: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# MODELS= names those to test; all of them take about ten minutes.
timm-tests: $(VENV)/installed
	$(BIN)/python -m tests.timm_suite $(MODELS)

bench: $(VENV)/installed
	$(BIN)/convit bench --preset cpu
	$(BIN)/python benchmarks/speed_up.py

format: $(VENV)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(VENV)-oldest build src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
