# Sections of scripts/test that compile and run Rust; read by it, never run by itself.
# shellcheck shell=bash

# Room for what the run as another user reads and keeps.
NOBODY_ROOM="${CJM_NOBODY_ROOM:-/var/tmp/cjm-substrate-nobody}"
# Crates whose tests start processes.
NOBODY_CRATES="cjm-platform cjm-keeper cjm-catalog cjm-environments cjm-workers cjm-engine cjm-worker cjm-ctl cjm-tests"
# The tidy test, the quickstart, and whatever meets the ancestor (which needs Python 3.12, and Debian has 3.11) need what only
# we have; of the second line no test asks for a right, or who may do all is the harder case.
NOBODY_LEAVES_OUT="tidy ancestor capabilities commands conda conda_shared conformance containers full_disk kept_files laboratory manifests mounts quickstart under_its_host unwritable_disk \
bad_input command_line hostile_folder interpreter_lock next_steps paper recordings stopped_runs told_failures unread_output"
# What another user may do shows in few of each: all scenarios, elements and commands run once, in the section rust.
NOBODY_COUNTS="CJM_SIM_SCENARIOS=500 CJM_ELEMENTS=40 CJM_ROUNDS=1 CJM_COMMANDS=20 CJM_JOBS=500"
# Test programs that hold the product to times which a busy machine cannot keep.
ALONE="interpreter_lock kill"

# The fuzz targets are a workspace of their own.
lints() {
    cargo clippy --quiet --workspace --all-targets --locked -- -D warnings || return 1
    RUSTFLAGS="--cfg fuzzing" CARGO_TARGET_DIR="$CACHE/fuzz-target" \
        cargo clippy --quiet --locked --manifest-path tests/fuzz/Cargo.toml -- -D warnings || return 1
    count 1 0 0
}

# Every public item has its words (a lint), and every link in them leads somewhere.
docs() {
    RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps --locked || return 1
    count 1 0 0
}

# All binaries, tests and examples in one go; what there is goes into the file ARTIFACTS.
ARTIFACTS="$LOGS/artifacts.json"
build() {
    [ ! -s "$ARTIFACTS" ] || return 0
    cargo build --workspace --all-targets --locked --message-format=json-render-diagnostics \
        >"$ARTIFACTS.new" 2>"$LOGS/build" || { cat "$LOGS/build"; return 1; }
    tail -1 "$LOGS/build"
    mv "$ARTIFACTS.new" "$ARTIFACTS"
}

rust() {
    local status=0 docs
    build || return 1
    : >"$1"
    # One at a time, and mostly compiling: beside the programs they cost no time.
    cargo test --workspace --locked --no-fail-fast --doc >"$1.doc" 2>&1 &
    docs=$!
    # shellcheck disable=SC2086
    scripts/testing/programs.py "$ARTIFACTS" --log "$1" --times "$CACHE/test-times.json" --alone $ALONE || status=1
    wait "$docs" || { status=1; cat "$1.doc"; }
    cat "$1.doc" >>"$1"
    count_rust "$1"
    return "$status"
}

# The process tests as a user without rights, from copies that everybody can read, with Debian's Python.
nobody() {
    if [ "$(id -u)" -ne 0 ]; then
        echo "SKIPPED nobody: only root can become another user" | tee "$1"
        count 0 0 1
        ! is_ci
        return
    fi
    build || return 1
    local source="$NOBODY_ROOM/source" programs="$NOBODY_ROOM/programs" home="$NOBODY_ROOM/home" status=0 network
    mkdir -p "$source" "$programs" "$home" || return 1
    repository_files >"$1.files"
    tar -cf - -T "$1.files" | (cd "$source" && find . -type f -delete && tar -xpf -) || return 1
    scripts/testing/room.py "$ARTIFACTS" "$programs" || return 1
    chmod a+rx "$NOBODY_ROOM"
    chmod -R a+rX "$source" && find "$programs" -type d -exec chmod a+rx {} +
    # Its home is kept too, with what was fetched.
    chown 65534:65534 "$home"
    # How this machine reaches the network, and whom it trusts; nothing else of our environment.
    mapfile -t network < <(env | grep -iE '^(https?_proxy|no_proxy|all_proxy|SSL_CERT_[A-Z]*|PIP_[A-Z_]*|UV_[A-Z_]*|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE)=')
    : >"$1"
    # shellcheck disable=SC2086
    scripts/testing/programs.py "$ARTIFACTS" --log "$1" --times "$CACHE/test-times-of-nobody.json" --alone $ALONE \
        --crates $NOBODY_CRATES --without $NOBODY_LEAVES_OUT --room "$programs" --root "$source" \
        --as env -i "${network[@]}" PATH=/usr/local/bin:/usr/bin:/bin HOME="$home" TMPDIR=/tmp LANG=C.UTF-8 USER=nobody \
        CJM_TEST_PYTHON=/usr/bin/python3 CJM_TEST_CACHE="$home/cache" CJM_TEST_ROOT="$source" $NOBODY_COUNTS \
        setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs || status=1
    count_rust "$1"
    return "$status"
}

# Ten seconds for each fuzz target; `cargo xtask soak fuzz` takes longer. It builds into a folder of its own.
FUZZ_SECONDS=10
fuzz() {
    scripts/fuzz --seconds "$FUZZ_SECONDS" 2>&1 | tee "$1"
    local status="${PIPESTATUS[0]}" line
    line="$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$1" | tail -1)"
    # shellcheck disable=SC2086
    [ -z "$line" ] || count $line 0
    return "$status"
}
