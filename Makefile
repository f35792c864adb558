# Keelson's commands. `make up` and `make test` are all that a newcomer needs; `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
NODES ?= 1
TARGET := $(or $(CARGO_TARGET_DIR),target)
BENCH = $(if $(ONLY),--only $(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SMALL),--small) $(if $(FRESH),--fresh)
export CARGO_TERM_PROGRESS_WHEN ?= auto

.PHONY: help up down build package test machines crash check bench bench-beside conformance conformance-slice conformance-down prepare prepare-up prepare-machines prepare-package prepare-upstream

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-17s %s\n", $$1, $$2}'

up: prepare-up build ## start a cluster on this machine (NODES=n) and show a service answering
	@$(TARGET)/release/xtask up --nodes $(NODES)

down: ## end it and list whatever it left behind
	@if [ -x $(TARGET)/release/xtask ]; then $(TARGET)/release/xtask down; else echo "Nothing was built here, so no cluster runs."; fi

build: prepare ## the programs: agent, master, CNI plugins, and the hello image's server
	@scripts/build

package: prepare-package ## Debian packages and an archive of static programs, with bills of materials, into target/packages
	@cargo run --locked --quiet -p xtask -- package
	@lintian --fail-on error,warning --allow-root target/packages/*.deb

test: prepare-up build ## every test of the project but the long suites
	@scripts/test

machines: prepare-machines build ## worker machines with systemd and cgroup v2, in QEMU: FILTER='part of a name' DEBIAN=12|13 KEEP=1
	@$(if $(KEEP),KEELSON_KEEP=1) $(if $(DEBIAN),KEELSON_DEBIAN=$(DEBIAN)) cargo test --locked --workspace --test machines -- $(FILTER)

crash: prepare-up build ## the long rounds: 200 random kills of the master under load, 50 of agent and containerd
	@KEELSON_ROUNDS=200 cargo test --locked --workspace --test cluster -- disruption::killing_the_master
	@KEELSON_ROUNDS=50 cargo test --locked --workspace --test cluster -- disruption::killing_agent

check: prepare ## formatting, lints, layers, sizes, licences
	@scripts/check

bench: prepare-up build ## measure this checkout on this machine: ONLY=node|control|proxy|cni ROUNDS=n
	@$(TARGET)/release/xtask bench $(BENCH)

bench-beside: prepare-upstream build ## the same beside stock Kubernetes, into docs/benchmarks.md
	@$(TARGET)/release/xtask bench-beside $(BENCH)

# Its variables reach the program through the environment, as make exports what is set on its command line.
conformance: prepare-upstream $(if $(filter e2e-node,$(SUITE)),prepare-machines) build ## upstream's tests: SUITE=node|conformance|node-features|e2e-node|cri AGAINST=ours|stock|stock+agent|master+kubelet STAGE=parallel|serial|machine FOCUS='part of a name'
	@$(TARGET)/release/xtask conformance

conformance-slice: prepare-upstream build ## a part of upstream's tests that pass, for CI: SLICE=minutes
	@$(TARGET)/release/xtask conformance --slice $(or $(SLICE),6)

conformance-down: ## end a cluster that was left by KEEP=1
	@$(TARGET)/release/xtask conformance --down

prepare:
	@scripts/prepare build

prepare-up:
	@scripts/prepare up

prepare-package:
	@scripts/prepare package

prepare-machines: prepare-up
	@scripts/prepare machines

prepare-upstream: prepare-up
	@scripts/prepare upstream
