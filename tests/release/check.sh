#!/usr/bin/env bash
# Builds what a release publishes, and uses it as its users do.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
step() { printf '\n== %s\n' "$*"; "$@"; }
skip() { printf 'SKIPPED: tests/release/check.sh: %s\n' "$1" | tee -a "${CAMPANILE_SKIPS:-$target/skips}"; }

# `cargo package` builds the program from the package alone.
step cargo package --locked ${ALLOW_DIRTY:+--allow-dirty}

in_an_empty_root() {
    local root
    root=$(mktemp -d)
    cp "$1" "$root/campanile"
    # A server and its client: no library, no /proc, no user database, no zone files. The kernel ends
    # the server with the process that created its PID namespace.
    unshare -rmnp --fork --kill-child sh -c '
        ip link set lo up
        chroot "$0" /campanile serve --quiet --zone utc >"$0/lines" &
        until grep -q echo "$0/lines"; do sleep 0.1; done
        chroot "$0" /campanile echo && chroot "$0" /campanile daytime && kill $! && wait $!' "$root"
    rm -r "$root"
}
musl=$(uname -m)-unknown-linux-musl
if rustup target list --installed 2>/dev/null | grep -qx "$musl"; then
    step cargo build --release --locked --target "$musl"
    step in_an_empty_root "$target/$musl/release/campanile"
else
    skip "the target $musl is not installed: rustup target add $musl"
fi

debian() {
    local deb=$target/debian/campanile.deb before after
    cargo build --release --locked
    cargo run --manifest-path tests/release/Cargo.toml --target-dir "$target" -- manual target/manual
    cargo deb --no-build --locked -o "$deb"
    files() { find /etc /usr /lib /var/lib/systemd -xdev \( -type f -o -type l \) | grep -v '^/usr/share/info/dir$' | sort; }
    before=$(files)
    dpkg -i "$deb"
    # The manual is in it, the units are valid, and the program runs.
    dpkg -L campanile | grep -q /man1/campanile-serve
    systemd-analyze verify --man=no /usr/lib/systemd/system/campanile*.{service,socket} 2>&1 | tee "$target/verify"
    [ ! -s "$target/verify" ]
    campanile --version
    dpkg --purge campanile
    after=$(files)
    diff <(printf '%s' "$before") <(printf '%s' "$after")
}
if ! command -v cargo-deb >/dev/null; then
    skip 'cargo-deb is not installed: cargo install --locked cargo-deb'
elif [ "$(id -u)" -ne 0 ] || ! command -v dpkg >/dev/null; then
    skip 'dpkg installs packages as root on Debian only'
else
    step debian
fi
printf '\nthe release is complete\n'
