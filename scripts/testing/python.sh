# Sections of scripts/test that run Python, and the quickstart; read by it, never run by itself.
# shellcheck shell=bash

# Where the quickstart is played: what a fresh clone would hold.
CLONE="$CACHE/fresh-clone"

# The Python SDK, with the interpreter of Debian and with the oldest and the newest that answer here: it promises 3.9.
# The ancestor's releases, which the section rust has installed, lend it their genuine base class.
python() {
    local interpreter release found=() runs=() status=0 number
    CJM_GENUINE_PYTHON=""
    for release in "$CACHE"/ancestor-*/bin/python; do
        [ -x "$release" ] && CJM_GENUINE_PYTHON="${CJM_GENUINE_PYTHON:+$CJM_GENUINE_PYTHON:}$release"
    done
    export CJM_GENUINE_PYTHON
    mapfile -t found < <(interpreters)
    for number in "${!found[@]}"; do
        run_unittests "$1.$number" "${found[$number]}" worker-shim/python worker-shim/python/tests &
        runs+=($!)
    done
    for number in "${!found[@]}"; do
        echo "${found[$number]} ($("${found[$number]}" -V))"
        wait "${runs[$number]}"
        tell_unittests "$1.$number" $? || status=1
    done
    return "$status"
}

# The shipped Python tools, each in the environment that the quickstart made for it.
tools() {
    local folder name interpreter status=0
    for folder in capabilities/*/tests; do
        name="$(basename "$(dirname "$folder")")"
        interpreter="$CLONE/.cjm/envs/$name/bin/python"
        if [ ! -x "$interpreter" ]; then
            echo "$name: no environment; run the section quickstart first"
            status=1
            continue
        fi
        echo "$name"
        run_unittests "$1.$name" "$interpreter" "capabilities/$name:worker-shim/python" "$folder"
        tell_unittests "$1.$name" $? || status=1
    done
    return "$status"
}

# run_unittests LOG INTERPRETER PATH FOLDER
run_unittests() {
    PYTHONPATH="$3" PYTHONDONTWRITEBYTECODE=1 "$2" -W ignore::ResourceWarning -m unittest discover -s "$4" >"$1" 2>&1
}

# tell_unittests LOG STATUS: counts what ran, and shows all of it if one failed.
tell_unittests() {
    local status="$2"
    count_python "$1" || status=1
    if [ "$status" -eq 0 ]; then tail -3 "$1" | sed 's/^/    /'; else cat "$1"; fi
    return "$status"
}

# Interpreters that really run: /usr/bin/python3, and of all others the oldest from 3.9 on and the newest.
interpreters() {
    local candidate version
    echo /usr/bin/python3
    for candidate in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python /usr/bin/python3.[0-9]* /usr/local/bin/python3.[0-9]*; do
        [[ "$candidate" == *config* ]] && continue
        version="$("$candidate" -c 'import sys; v = sys.version_info; print("%d%03d" % v[:2] if v >= (3, 9) else "")' 2>/dev/null)"
        [ -n "$version" ] && echo "$version $candidate"
    done | sort -u | sed -n -e '1s/^[0-9]* //p' -e '1!{$s/^[0-9]* //p}' | grep -v -x /usr/bin/python3
}

# The quickstart as a newcomer runs it, with its own build, from what a fresh clone holds; then without a network.
quickstart() {
    local start again=(./scripts/quickstart)
    rm -rf "$CLONE"
    mkdir -p "$CLONE"
    repository_files >"$1.files"
    # Times of files are kept, so that cargo rebuilds only what changed since the last time.
    tar -cf - -T "$1.files" | tar -xpf - -C "$CLONE" || return 1
    (cd "$CLONE" && env -u CI ./scripts/quickstart) >"$1.first" 2>"$1.first.err" ||
        { cat "$1.first" "$1.first.err"; return 1; }
    cat "$1.first"
    if [ "$(id -u)" -eq 0 ]; then
        again=(unshare --net sh -c 'ip link set lo up && exec ./scripts/quickstart')
    else
        echo "SKIPPED quickstart: only root can take the network away; the second run had one" | tee "$1.skipped"
        count 0 0 1
    fi
    start=$(date +%s%N)
    (cd "$CLONE" && env -u CI "${again[@]}") >"$1.second" 2>"$1.second.err" ||
        { cat "$1.second" "$1.second.err"; return 1; }
    local took_ms=$((($(date +%s%N) - start) / 1000000)) file
    echo "MEASURED second ./scripts/quickstart without a network: $took_ms ms, goal 15000 ms" | tee "$1"
    for file in "$1.first" "$1.second"; do
        grep -qx '8 of 8 voices right, the noise recognised as no speech.' "$file" || { cat "$file"; return 1; }
        grep -q '^16 of 16 sentences right, ' "$file" || { cat "$file"; return 1; }
    done
    count 2 0 0
    [ "$took_ms" -lt 15000 ]
}
