# Keelson's commands. `make up` and `make test` are all that a newcomer needs; `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
NODES ?= 1
export CARGO_TERM_PROGRESS_WHEN ?= auto

.PHONY: help up down build test check lint fmt bench prepare prepare-up

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

up: prepare-up build ## start a cluster on this machine (NODES=n) and show a service answering
	@target/release/xtask up --nodes $(NODES)

down: ## end it and list whatever it left behind
	@if [ -x target/release/xtask ]; then target/release/xtask down; else echo "Nothing was built here, so no cluster runs."; fi

build: prepare ## the programs: agent, master, CNI plugins, and the hello image's server
	@scripts/build

test: prepare-up build ## every test of the project but the long suites
	@scripts/test

check: prepare ## formatting, lints, layers, sizes, licences
	@scripts/check

bench: prepare-up build ## measure this checkout on this machine
	@target/release/xtask bench

prepare:
	@scripts/prepare build

prepare-up:
	@scripts/prepare up
