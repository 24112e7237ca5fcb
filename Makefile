# What people type. `make sweep GPU=24GB` needs Rust, a C++ compiler and Python 3 with pip, and does the rest by itself.

GPU ?= 24GB
MODEL ?=
RESOLUTION ?=
FRAMES ?=
SWEEP ?= sweeps/default.yaml
DEVICE ?= auto
RAM ?=
ARGS ?=

lowmem := target/release/lowmem

# Cargo takes a colon for the end of a path: a checkout under such a path is built in the user's cache folder, and `target` is a link to that.
ifneq (,$(findstring :,$(CURDIR)))
cache := $(or $(LOWMEM_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lowmem)
export CARGO_TARGET_DIR := $(cache)/target-$(shell pwd | sha256sum | cut -c1-12)
linked := mkdir -p "$(CARGO_TARGET_DIR)" && ln -sfnT "$(CARGO_TARGET_DIR)" target
endif

.PHONY: help setup build sweep autotune dist test test-large soak test-gpu lint deny format reference bench peaks generated ram-table low-memory-mode program-peaks clean

help: ## This list.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | column -t -s '|'

setup: ## Fetches PyTorch once, into the user's cache folder.
	@setup/libtorch.sh

build: setup ## Builds everything.
	@$(or $(linked),:)
	@cargo build --release --workspace --quiet

sweep: build ## Measures every setting of SWEEP for GPU (24GB, rtx-4090), and for RAM (32GB) where it is given, and writes a report.
	@$(lowmem) sweep $(SWEEP) --gpu "$(GPU)" $(RAM:%=--ram "%") --device $(DEVICE) $(ARGS)

autotune: build ## Prints the best level for GPU, and for RAM, MODEL, RESOLUTION and FRAMES where they are given.
	@$(lowmem) autotune --gpu "$(GPU)" $(RAM:%=--ram "%") $(MODEL:%=--model %) $(RESOLUTION:%=--resolution %) $(FRAMES:%=--frames %) --device $(DEVICE) $(ARGS)

dist: build ## Makes target/dist/lowmem-VERSION-x86_64.tar.gz, for machines without Rust.
	@setup/dist.sh

test: build ## All tests that need no GPU.
	cargo test --release --workspace

test-large: build ## Programs over packages of gigabytes, which it fetches: PyTorch for CUDA 12, and Triton for torch.compile.
	cargo test --release --workspace --test cli -- --ignored large_packages::

soak: ## Random operations of several threads on the virtual GPU, under address sanitizer.
	@virtual-gpu/tests/soak/sanitized.sh

test-gpu: ## On a machine with an NVIDIA GPU of 8 GB or more: tests what fits, and writes reports/measured/CARD-DATE. A quarter of an hour at most.
	@setup/test-gpu.sh

lint: setup ## Formatting and clippy, warnings as errors.
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets --quiet -- -D warnings

deny: ## Holds licences and sources of the dependencies against deny.toml (builds cargo-deny once).
	@setup/deny.sh

format: ## Formats the code.
	cargo fmt --all

reference: build ## Makes the fixtures of the parity tests anew, from diffusers and transformers.
	tests/fixtures/make.sh

bench: build ## Times our transformer and VAE beside diffusers' on the CPU, and what the observer costs, and a pass from files beside the disk alone; writes all into engine/benches/.
	@engine/benches/beside_diffusers.sh --write $(ARGS)
	@engine/benches/observer_cost.py --write
	@cargo bench --workspace --quiet --bench streaming -- --write

peaks: build ## Measures the peaks of each level and flag on the virtual GPU; writes tests/memory/peaks.csv and rank_peaks.csv, docs/memory-levels.md and reports/measured/*/virtual.jsonl.
	LOWMEM_RENEW_PEAKS=1 cargo test --release --workspace --test memory -- --exact peak_table::peaks_are_those_of_the_table peak_table::peaks_of_ranks_are_those_of_the_table \
		flag_effects::each_flags_effect_is_that_of_the_documentation measured_rows::peaks_are_those_that_were_measured

generated: build ## Writes anew what is made from tables: lists of flags and columns, the schema of sweep files, docs/measured.md.
	LOWMEM_RENEW=1 cargo test --release --workspace --test cli --test gpu -- generated:: page::what_was_measured

ram-table: build ## Has autotune choose the rows of docs/ram.md anew.
	LOWMEM_RENEW_RAM=1 cargo test --release --workspace --test memory -- --exact ram_table::each_row_runs_as_it_says

low-memory-mode: build ## Fills the tables of docs/low-memory-mode.md anew, from sweeps/hardware.yaml, flexcache.yaml, sage.yaml and several-gpus.yaml on virtual GPUs.
	LOWMEM_RENEW_LOW_MEMORY_MODE=1 cargo test --release --workspace --test memory -- --exact low_memory_mode::the_page_is_what_the_runs_give

program-peaks: build ## Measures the peaks of diffusers' and transformers' programs; writes tests/cli/program_peaks/peaks.csv and docs/virtual-gpu.md.
	LOWMEM_RENEW_PEAKS=1 cargo test --release --workspace --test cli -- --exact program_peaks::peaks_of_other_programs_are_those_of_the_table

clean: ## Removes what was built here, not what was fetched.
	cargo clean
