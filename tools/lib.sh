# Shared by ./demo, ./test and ./bench: what a fresh Debian 12 lacks, where things are kept, a Postgres for tests.
# Sourced, not run. Says what it installs.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

need_root() {
    [ "$(id -u)" = 0 ] || die "sandboxes need root: run sudo $0"
}

# Debian packages that the platform and its tests call on. One apt call, only for what is missing.
packages=(build-essential ca-certificates curl postgresql mmdebstrap zstd nftables iproute2 btrfs-progs busybox-static python3-venv)

install_packages() {
    local missing=() package
    for package in "${packages[@]}" "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    say "installing Debian packages: ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    # Debian starts what it installs; what is measured is started by its bench.
    for package in nginx-light:nginx haproxy:haproxy; do
        if printf '%s\n' "${missing[@]}" | grep -qx "${package%:*}"; then
            service "${package#*:}" stop >/dev/null 2>&1 || true
        fi
    done
    # The platform runs a Postgres of its own; the one that Debian starts with the package is not used.
    if printf '%s\n' "${missing[@]}" | grep -qx postgresql && command -v pg_lsclusters >/dev/null; then
        pg_ctlcluster "$(pg_lsclusters -h | awk '{print $1; exit}')" main stop 2>/dev/null || true
    fi
}

# rustup knows a tool chain by its name, and would fetch the release of rust-toolchain.toml although it is the default one,
# installed as "stable". A machine without network could not build.
use_installed_toolchain() {
    local channel default
    command -v rustup >/dev/null && [ -z "${RUSTUP_TOOLCHAIN:-}" ] || return 0
    channel=$(sed -n 's/^channel = "\(.*\)"$/\1/p' "$root/rust-toolchain.toml")
    ! rustup toolchain list | grep -q "^$channel-" || return 0
    default=$(rustup default 2>/dev/null | cut -d' ' -f1)
    if [ "$(rustup run "$default" rustc --version 2>/dev/null | cut -d' ' -f2)" = "$channel" ]; then
        export RUSTUP_TOOLCHAIN=$default
    fi
}

# Cargo's output lies outside the clone, so that every clone on a machine shares it. Cargo tells the workspace's own crates
# apart by their place in the workspace and the age of their files: what another clone has built would pass for this one's.
use_cargo() {
    command -v cargo >/dev/null || { [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"; }
    command -v cargo >/dev/null || die "no Rust tool chain: install one with rustup (rustup.rs), then run $0 again"
    use_installed_toolchain
    # Who is not root has a place of their own.
    local cache=/var/cache/slipway
    [ "$(id -u)" = 0 ] || cache=${XDG_CACHE_HOME:-$HOME/.cache}/slipway
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
    export SQLX_OFFLINE=true
    unset DATABASE_URL
    mkdir -p "$CARGO_TARGET_DIR"
    if [ "$(cat "$CARGO_TARGET_DIR/clone" 2>/dev/null)" != "$root" ]; then
        cargo clean -q --workspace
        cargo clean -q --workspace --release
        # What the cell agent embeds is built beside them.
        cargo clean -q --workspace --profile helper --target-dir "$CARGO_TARGET_DIR/helper"
        printf '%s\n' "$root" >"$CARGO_TARGET_DIR/clone"
    fi
}

# Layers are named by content and kept between runs.
export SLIPWAY_STACK_DIR=${SLIPWAY_STACK_DIR:-/var/cache/slipway/stacks}

# What checks which dependencies may come in (deny.toml), in a place of its own. Without its parts for advisories, which need
# a database, and without optimisation it is there in a minute.
cargo_deny() {
    local version=0.20.2 place=/var/cache/slipway/tools
    if [ "$("$place/bin/cargo-deny" --version 2>/dev/null)" != "cargo-deny $version" ]; then
        say "installing cargo-deny $version into $place (about 2 minutes)"
        CARGO_TARGET_DIR="$place/target" \
            cargo install -q cargo-deny --version "$version" --locked --no-default-features --debug --root "$place"
        rm -rf "$place/target"
    fi
    "$place/bin/cargo-deny" --locked check bans licenses sources
}

# The Python client that the platform is tried with, in a place of its own. Kept as long as the list of what is in it.
python_client() {
    local venv=/var/cache/slipway/venv wanted="$root/tests/python/requirements.txt"
    if ! cmp -s "$wanted" "$venv/requirements.txt"; then
        say "installing $(grep -v '^#' "$wanted" | tr '\n' ' ')into $venv"
        rm -rf "$venv"
        /usr/bin/python3 -m venv "$venv"
        "$venv/bin/pip" install -q --disable-pip-version-check -r "$wanted"
        cp "$wanted" "$venv/requirements.txt"
    fi
    export SLIPWAY_PYTHON="$venv/bin/python3"
}

# Postgres refuses to be run by root.
as_postgres() {
    if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
}

# A Postgres for tests: own data directory, unix socket only, no fsync. Sets SLIPWAY_TEST_DATABASE_URL.
start_test_postgres() {
    local bin
    bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
    test_postgres=$(mktemp -d /tmp/slipway-test-pg.XXXXXX)
    [ "$(id -u)" != 0 ] || chown postgres: "$test_postgres"
    as_postgres "$bin/initdb" -D "$test_postgres/data" -A trust -U slipway --no-instructions >/dev/null
    as_postgres "$bin/pg_ctl" -D "$test_postgres/data" -l "$test_postgres/log" -s -w start \
        -o "-k $test_postgres -c listen_addresses='' -c fsync=off -c max_connections=400"
    export SLIPWAY_TEST_DATABASE_URL="postgres://slipway@localhost/postgres?host=$test_postgres"
}

stop_test_postgres() {
    [ -n "${test_postgres:-}" ] || return 0
    local bin
    bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
    as_postgres "$bin/pg_ctl" -D "$test_postgres/data" -s -m immediate stop || true
    rm -rf "$test_postgres"
    test_postgres=
}
