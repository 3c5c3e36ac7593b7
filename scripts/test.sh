#!/usr/bin/env bash
# Every test. One line a stage; the whole log of a stage that failed comes at the end, and then the totals.
#
#   scripts/test.sh              all stages
#   scripts/test.sh fmt clippy   these only
set -u
cd "$(dirname "$0")/.." || exit 1
root=${EKIDEN_TOOLS:-$HOME/.cache/ekiden/tools}
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
export CARGO_TERM_COLOR=never RUST_BACKTRACE=${RUST_BACKTRACE:-1} RUST_LIB_BACKTRACE=0
passed=0 failed=0 skipped=0 bad=()

# What cargo's test runner counted in a log.
count() { awk -v field="$2" '/^test result:/ { for (i = 2; i <= NF; i++) if ($i ~ "^" field) n += $(i-1) } END { print n + 0 }' "$1"; }

# NAME COMMAND...: runs it, says how it went, and counts: its tests if it ran any, else itself as one.
stage() {
  local name=$1 log=$logs/$1.log began=$SECONDS ok=yes p f s
  shift
  "$@" >"$log" 2>&1 </dev/null || ok=no
  p=$(count "$log" passed) f=$(count "$log" failed) s=$(count "$log" ignored)
  if [ $ok = no ]; then
    bad+=("$name")
    [ "$f" -gt 0 ] || f=1
  elif [ $((p + f + s)) = 0 ]; then
    p=1
  fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  local outcome="ok"
  [ $ok = yes ] || outcome="FAILED"
  printf '%-10s %-6s %4d s  %4d passed, %d failed\n' "$name" "$outcome" $((SECONDS - began)) "$p" "$f"
}

stage_fmt() { cargo fmt --all --check; }
stage_clippy() { cargo clippy --workspace --all-targets --all-features --quiet -- -D warnings; }
stage_build() { cargo test --workspace --no-run; }
# The hub that was built with the tests; alone it would be built a second time, with fewer features of the crates that both use.
stage_tests() { EKIDEN_BIN=$(realpath "${CARGO_TARGET_DIR:-target}")/debug/ekiden cargo test --workspace --no-fail-fast; }
# The model checker replaces the atomics of these crates: a build of its own.
stage_loom() { RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/loom cargo test --profile dev -p ekiden-crypto -p ekiden-stats --lib; }
# What the model checker and the fuzzers can't see: memory that is used wrongly, in the rings over plain memory and in what
# of packet memory needs no kernel (which is leaked on purpose: frames point into it for ever). Miri comes with nightly Rust alone, and is used where that is installed.
stage_miri() {
  CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/miri MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks" cargo +nightly miri test -p ekiden-dataplane --lib -- \
    xsk::ring_tests xsk::frame xsk::umem xsk::path
}
# Every fuzz target, for EKIDEN_FUZZ_SECONDS each, two at a time: one of each side.
stage_fuzz() {
  export EKIDEN_FUZZ_SECONDS=${EKIDEN_FUZZ_SECONDS:-30}
  fuzz_frames & local frames=$!
  local ok=0
  fuzz_messages || ok=1
  wait $frames || ok=1
  return $ok
}
fuzz_frames() { cargo test -p ekiden-dataplane --test fuzz -- --nocapture --test-threads=1; }
fuzz_messages() {
  cargo test -p ekiden-crypto --lib peer::tests::fuzz -- --nocapture --test-threads=1 &&
    cargo test -p ekiden-dataplane --lib tests::fuzz -- --nocapture --test-threads=1
}
# Instructions of the journey and of the XDP program against those of bench/instructions.txt: time says nothing on a machine that is shared.
stage_counts() { cargo bench --quiet -p ekiden-bench --bench instructions; }
stage_doc() { RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --quiet; }
stage_deny() { "$root/bin/cargo-deny" --all-features check --hide-inclusion-graph licenses bans sources; }
stage_advisories() { "$root/bin/cargo-deny" --offline check advisories; }

for name in ${*:-fmt clippy build tests fuzz loom counts doc deny}; do
  stage "$name" "stage_$name"
done
# Known vulnerabilities are listed in a database that is fetched from elsewhere: where there is none, nobody looked.
if [ $# = 0 ]; then
  if cargo +nightly miri --version >/dev/null 2>&1; then
    stage miri stage_miri
  else
    printf '%-10s %-6s NOT CHECKED: no Miri on this machine (rustup +nightly component add miri rust-src)\n' miri SKIPPED
    skipped=$((skipped + 1))
  fi
  if [ -d "${CARGO_HOME:-$HOME/.cargo}/advisory-db" ] || [ -d "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs" ]; then
    stage advisories stage_advisories
  else
    printf '%-10s %-6s NOT CHECKED: no advisory database on this machine (cargo deny fetch db)\n' advisories SKIPPED
    skipped=$((skipped + 1))
  fi
fi

for name in ${bad[@]+"${bad[@]}"}; do
  printf '\n======== %s failed: its log\n' "$name"
  cat "$logs/$name.log"
done
[ ${#bad[@]} = 0 ] || printf '\nfailed: %s\n' "${bad[*]}"
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
