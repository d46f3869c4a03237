#!/bin/sh
# Compiles the example into ./server, which is what is pushed.
set -eu
cd "$(dirname "$0")"
rustc --edition 2024 -C opt-level=s -C strip=symbols -o server src/server.rs
