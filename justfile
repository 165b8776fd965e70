# The commands of everyday work. `just` alone lists them; each is a line that can be typed as well.

_:
    @just --list --unsorted

# Formats everything.
fmt:
    cargo fmt
    rustfmt --edition 2024 fuzz/targets/*.rs fuzz/src/*.rs

# What CI refuses before it runs a test: format, clippy, the documentation of the code.
lint:
    cargo fmt --check
    rustfmt --check --edition 2024 fuzz/targets/*.rs fuzz/src/*.rs
    cargo clippy --locked --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

# Brings the table of codes in docs/API.md up to the catalogue.
codes:
    WRITE_TABLE=1 cargo test --locked -p fedgate-core --lib the_documented_table

# Tests that start no program and no server.
test *ARGS:
    tests/run --fast {{ARGS}}

# All tests, as CI runs them.
test-all *ARGS:
    tests/run {{ARGS}}

# The steps of a request, measured.
bench *ARGS:
    cargo bench --locked {{ARGS}}

# Soak, floods, kills, upgrades and outages, for hours.
test-long *ARGS:
    tests/run --long {{ARGS}}

# Gateway and HIS over HTTPS with demo data.
demo *ARGS:
    cargo build --profile try --locked
    cargo run --profile try --locked -- demo {{ARGS}}

# Each fuzz target for some seconds.
fuzz SECONDS="60" *TARGETS:
    fuzz/run {{SECONDS}} {{TARGETS}}

# The documentation of the code, opened.
docs:
    cargo doc --locked --no-deps --open

# The book of docs/, built into target/book/docs; fails on a link that leads nowhere.
book:
    .ci/book

# Licences, sources and duplicates of what is built in.
deny:
    .ci/deny
