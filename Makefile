# The commands that anyone must know. `make up` runs the stack; `make test` passes the tests.
.PHONY: lint
lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
