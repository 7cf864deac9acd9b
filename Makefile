# What a user and a contributor run. `make help` lists it; everything happens in .venv, made on first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt
CPP_FILES := $(shell find native -name '*.[ch]pp')
NATIVE := CMakeLists.txt $(filter-out native/tests/%,$(CPP_FILES))
CHECKED := build/native-tests

.PHONY: help venv hooks llama-native demo test test-slow test-gpu-layers check lint types walls native-tests docs bench eval fuzz format clean

help:  ## Show this.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

venv: $(VENV)/.installed  ## Make the virtual environment with sakuin in it.

# torch comes first and alone: a CPU build where pip is set up for one, and never replaced by what follows.
$(VENV)/.torch: constraints.txt
	@test -x $(BIN)/python || { echo "Making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing torch"
	@$(PIP) $(shell grep '^torch==' constraints.txt)
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml $(NATIVE)
	@echo "Installing sakuin (the native core is compiled: a minute or two)"
	@$(PIP) scikit-build-core nanobind cmake ninja hnswlib rouge-score sqlitedict word2number  # the last four may come as source, whose build wants isolation
	@$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@

hooks: venv  ## Have git run ruff, mypy, clang-format and the import checker before each commit.
	@$(BIN)/pre-commit install

demo: venv  ## Ask a real model about a long document, beside full attention.
	@$(BIN)/python examples/demo.py

# Two workers of one thread each take little more than half the time of one with two. Tests of several threads ask for
# them; what a user's two threads do is run by itself after.
test: venv  ## Run the tests that finish in minutes.
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' -n 2 --dist worksteal
	@$(BIN)/python -m pytest -m 'not slow' tests/cache tests/backends/llama_cpp/test_llama_backend.py

test-slow: venv  ## Run the slow tests: planted facts at every depth, fidelity.
	@$(BIN)/python -m pytest -m slow

check: lint types walls native-tests docs  ## Lint, types, imports, native tests under sanitizers, docs.

lint: venv
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/clang-format --dry-run --Werror $(CPP_FILES)

types: venv
	@$(BIN)/mypy

walls: venv
	@$(BIN)/lint-imports --no-logo --no-cache

native-tests: venv
	@$(BIN)/cmake -S . -B $(CHECKED) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DCMAKE_BUILD_TYPE=Debug \
	  -DSAKUIN_PYTHON=OFF -DSAKUIN_NATIVE_TESTS=ON -DSAKUIN_SANITIZE=address,undefined > /dev/null
	@$(BIN)/cmake --build $(CHECKED) > $(CHECKED)/build.log || { cat $(CHECKED)/build.log; exit 1; }
	@$(BIN)/ctest --test-dir $(CHECKED) --output-on-failure

docs: venv
	@$(BIN)/python tools/docs/generate.py --check

# Only its shared libraries are used: none of what its Python part needs is installed. AMX kernels that gcc 12 builds
# may kill the process; sakuin leaves them off.
LLAMA_CPP_PYTHON := 0.3.36
llama-native: venv  ## Build llama.cpp for this machine, to be used instead of the one that came as a wheel (5 minutes).
	@CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF" \
	  $(PIP) --no-deps --no-binary llama-cpp-python 'llama-cpp-python==$(LLAMA_CPP_PYTHON)'

test-gpu-layers: venv  ## Compare answers with layers on a GPU, Mesa's software device or the one of SAKUIN_LLAMA_LIBRARY.
	@$(BIN)/python tools/llama/gpu_layers.py $(LLAMA_CPP_PYTHON) build/llama-vulkan

bench: venv  ## Run the benchmarks that the figures in the docs come from (slow).
	@$(BIN)/python -m benchmarks

eval: venv  ## Measure whether answers stay what full attention gives: a short form of docs/fidelity.md.
	@$(BIN)/sakuin models get smollm2
	@$(BIN)/sakuin eval fidelity --lengths 4096 --tokens 96 --configurations "balanced fast faithful streaming topk@balanced"
	@$(BIN)/sakuin eval needle --lengths "2000 4000" --depths 3 --configurations "full balanced streaming"
	@$(BIN)/sakuin eval extract --lengths 2000 --by-number --configurations "full balanced"
	@$(BIN)/sakuin eval ruler --samples 1 --tasks "niah_single_1 niah_multikey_1 qa_1" --configurations balanced

# Seeds begin anywhere: FIRST=20000 make fuzz tries others.
FIRST ?= 0
fuzz: native-tests  ## Throw thousands of damaged segments, odd numbers, failing allocations, forged files and kills at it.
	@$(CHECKED)/sakuin_fuzz damaged $(FIRST) 10000
	@$(CHECKED)/sakuin_fuzz extreme $(FIRST) 2000
	@$(CHECKED)/sakuin_fuzz allocations $(FIRST) 3000
	@HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest tests/index/test_native_fuzz*.py tests/index/test_ends_promptly.py
	@HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest tests/library/test_fuzz_*.py tests/snapshot/test_snapshot_fuzz.py
	@HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest tests/backends/llama_cpp/test_fuzz_headers.py

format: venv  ## Write the generated docs; format the code.
	@$(BIN)/python tools/docs/generate.py
	@$(BIN)/ruff format .
	@$(BIN)/clang-format -i $(CPP_FILES)

clean:  ## Remove builds and caches, not the environment.
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
