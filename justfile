# `just` lists the recipes; `pip install rust-just` brings the command.
default:
    @just --list

# Serve the sample collection on 127.0.0.1:50051.
run:
    cargo run --release

# What CI runs.
ci: fmt-check lint doc proto-lint deploy-check test first-run cuda-check

fmt:
    cargo fmt --all

fmt-check:
    cargo fmt --all --check

lint:
    cargo clippy --release --workspace --all-targets -- -D warnings

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps

# The README's second command.
test:
    cargo test --release --workspace

# The README's first command, from its start to an answer.
first-run:
    bash scripts/first-run.sh

# Type-check what is behind the feature `cuda`, with a stub in place of the CUDA compiler.
cuda-check:
    bash scripts/check-cuda.sh stub

# The same with NVIDIA's compiler, fetched into target/: compiles candle's kernels too, which takes long.
cuda-check-real:
    bash scripts/check-cuda.sh real

# Regenerate the wire code from the protos (pure Rust, no protoc).
gen:
    cargo run --release -p diptych-proto --example gen

proto-lint:
    cd proto && buf lint

# Render the manifests; hold them and the Dockerfile against schemas, linters and the server's source.
deploy-check:
    bash scripts/check-deploy.sh

# Fetch the packages that the sample is made of, and write the prepared data set.
emoji-data:
    bash scripts/fetch-emoji.sh target/emoji
    cargo run --release -p diptych-train -- prepare emoji --source target/emoji --out target/emoji-data
    cargo run --release -p diptych-train -- prepare emoji --source target/emoji --out target/emoji-sentences-data --more-keywords

# Train the sample bundle, after emoji-data (an estimated 35 to 70 minutes on two cores, by the machine); --resume goes on where a run was cut off.
emoji-train:
    cargo run --release -p diptych-train -- fit configs/train/emoji-split.toml --out target/runs/emoji-split --resume
    cargo run --release -p diptych-train -- fit configs/train/emoji-sentences.toml --out target/runs/emoji-sentences --resume
    cargo run --release -p diptych-train -- fit configs/train/emoji-exclusive.toml --out target/runs/emoji-exclusive --resume

# Measure what was trained, write the bundle and the pack of pictures that the server carries.
emoji-export:
    cargo run --release -p diptych-train -- eval --run target/runs/emoji-exclusive --phrases tests/fixtures/phrases.jsonl
    cargo run --release -p diptych-train -- export --run target/runs/emoji-exclusive --to server/sample/bundle
    cargo run --release -p diptych-train -- sample --data target/emoji-data --out server/sample/emoji.tar.gz

# What the served bundle cannot show (ten minutes, after emoji-data): names withheld from training, and a drawing style never seen.
emoji-withheld:
    cargo run --release -p diptych-train -- prepare emoji --source target/emoji --out target/openmoji-data --styles openmoji
    cargo run --release -p diptych-train -- fit configs/train/emoji-split-withheld.toml --out target/runs/withheld --resume
    cargo run --release -p diptych-train -- fit configs/train/emoji-sentences-withheld.toml --out target/runs/sentences-withheld --resume
    cargo run --release -p diptych-train -- eval --run target/runs/sentences-withheld --images target/openmoji-data

# What is read from which vectors by `split`, with and without known labels, after emoji-train: three seeds each, a quarter of an hour; no table of it is kept.
emoji-styles:
    cargo run --release -p diptych-train -- fit configs/train/emoji-styles-labelled.toml --seeds 3 --out target/runs/emoji-styles-labelled --resume
    cargo run --release -p diptych-train -- fit configs/train/emoji-styles-unlabelled.toml --seeds 3 --out target/runs/emoji-styles-unlabelled --resume
    cargo run --release -p diptych-train -- eval --run target/runs/emoji-styles-labelled
    cargo run --release -p diptych-train -- eval --run target/runs/emoji-styles-unlabelled

# Fetch pictures that were not made for training, with captions in a dozen languages, and write the prepared data set.
stamps-data:
    bash scripts/fetch-stamps.sh target/stamps
    cargo run --release -p diptych-train -- prepare folder --images target/stamps/stamps --captions target/stamps/stamps/captions.jsonl --labels category --licence GPL-2.0-or-later --out target/stamps-data

# Slow checks: hundreds of kills, power losses and full disks, accuracy over gRPC, timings. Run before an issue is called resolved.
long:
    cargo test --release -p diptych-tests -- --ignored --nocapture

# What 10,000, 100,000 and a million vectors cost: ingest, start, memory, searches while writes go on. An hour; takes other sizes.
bench-million *sizes:
    cargo run --release -p diptych-tests --example million -- {{sizes}}

# Three times as many searches as the server can answer, both ways, and searches while items are put: eight minutes on two quiet cores.
bench-overload *arguments:
    bash scripts/bench-overload.sh {{arguments}}

# Search by vector through gRPC beside Milvus standalone, same vectors and callers, in turn: fifteen minutes.
bench-milvus rows="100000":
    bash scripts/bench-milvus.sh {{rows}}

# A training step by stage, beside the same network in PyTorch (Debian's python3-torch): eight minutes.
bench-train:
    bash scripts/bench-train.sh

# Operations of frozen towers beside ONNX Runtime, the same networks in turn: ten minutes.
bench-onnx *arguments:
    bash scripts/bench-onnx.sh {{arguments}}

# Embedding through our gRPC beside a Python server on ONNX Runtime, same networks, in turn: fifteen minutes.
bench-python-server *arguments:
    bash scripts/bench-python-server.sh {{arguments}}

# What batching brings: each tower beside itself with batches of one.
bench-batching *arguments:
    cargo build --release --workspace --bins
    python3 scripts/bench-batching.py --programs target/release {{arguments}}

# Every fuzz target for so many seconds each, one after the other; needs a nightly toolchain beside the stable one.
fuzz seconds="300" *targets:
    bash scripts/fuzz.sh {{seconds}} {{targets}}
