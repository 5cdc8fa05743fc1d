# Servers that tests of others' making run against: a steadyhand that offers its engine, and Temporal. Sourced; needs
# $CARGO_TARGET_DIR and $venv. Each is fresh, and ends with the script.

place=$(mktemp -d)
servers=()
end_servers() {
    [ ${#servers[@]} -eq 0 ] || kill "${servers[@]}" 2>/dev/null || true
    wait
    rm -rf "$place"
}
trap end_servers EXIT

# Waits until the server at an address answers, and registers search attributes: name=Type ...
prepare() {
    local address=$1 attempt attribute arguments=()
    shift
    for attempt in $(seq 100); do
        "$venv/bin/temporal" --address "$address" operator cluster health >/dev/null 2>&1 && break
        [ "$attempt" -lt 100 ] || { echo "$address does not answer" >&2; exit 1; }
        sleep 0.2
    done
    for attribute in "$@"; do
        arguments+=(--name "${attribute%=*}" --type "${attribute#*=}")
    done
    "$venv/bin/temporal" --address "$address" operator search-attribute create "${arguments[@]}" >/dev/null
}

# Sets $address.
start_steadyhand() {
    "$CARGO_TARGET_DIR/debug/steadyhand" serve --data "$place/data" --listen 127.0.0.1:0 --engine-listen 127.0.0.1:0 \
        --hands false --model-script tests/sdk/script.toml >"$place/out" 2>"$place/log" &
    servers+=($!)
    address=
    for _ in $(seq 300); do
        address=$(sed -n 's/\x1b\[[0-9;]*m//g; s/.*engine offered to other programs addr=\([0-9.:]*\).*/\1/p' "$place/log")
        [ -z "$address" ] || break
        sleep 0.1
    done
    prepare "$address" "$@"
}

# Sets $address. Arguments before `--` are settings, those behind it search attributes.
start_temporal() {
    local port settings=()
    while [ "$1" != -- ]; do
        settings+=(--dynamic-config-value "$1")
        shift
    done
    shift
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    address=127.0.0.1:$port
    "$venv/bin/temporal" server start-dev --headless --log-level error --ip 127.0.0.1 --port "$port" \
        "${settings[@]}" >/dev/null 2>&1 &
    servers+=($!)
    prepare "$address" "$@"
}
