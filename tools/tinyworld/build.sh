#!/usr/bin/env bash
# Builds tinyworld from nothing: judge, autoencoder, training pictures, denoiser and text encoder, measurements.
#
#   tools/tinyworld/build.sh            all of it, about five hours on two CPU cores
#   UPDATES=5000 tools/tinyworld/build.sh
#   UPDATES=4 FURTHER=4 LAST=4 SCALE=100 tools/tinyworld/build.sh      everything divided by 100: to see that it runs
#
# Each stage is left out where its result lies in BUILD (build/tinyworld), and the denoiser's training goes on from its
# last checkpoint: stop it when you like, and run the script again.  The model is written to OUT, the package's own by
# default; the judge is made again only where there is none.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
BUILD=${BUILD:-build/tinyworld}
OUT=${OUT:-dreamcore/tinyworld/model}
UPDATES=${UPDATES:-9000}
FURTHER=${FURTHER:-3600}
LAST=${LAST:-5600}
SCALE=${SCALE:-1}
COUNT=$((26000 / SCALE))
mkdir -p "$BUILD" "$OUT"

[ -f dreamcore/tinyworld/judge.safetensors ] || python tools/tinyworld/train_judge.py
# Four latent channels turned a teal and pink subject blue and yellow; eight, begun from those four, do not.
[ -f "$BUILD/vae4/quality.json" ] ||
  python tools/tinyworld/train_autoencoder.py --channels 4 --steps $((2600 / SCALE)) --pool $((16000 / SCALE)) \
    --out "$BUILD/vae4"
[ -f "$BUILD/vae/quality.json" ] ||
  python tools/tinyworld/train_autoencoder.py --init "$BUILD/vae4" --steps $((4000 / SCALE)) --learning_rate 1.5e-3 \
    --pool $((9000 / SCALE)) --out "$BUILD/vae"
[ -f "$(printf '%s/scenes/%05d.txt' "$BUILD" $((COUNT - 1)))" ] ||
  python tools/tinyworld/make_dataset.py --out "$BUILD/scenes" --count "$COUNT"
[ -f "$BUILD/init/model_index.json" ] || python tools/tinyworld/init_model.py --vae "$BUILD/vae" --out "$BUILD/init"

# Trains BASE into RUN, on from its last checkpoint where there is one.
denoiser() {
  local base=$1 run=$2 resume=()
  shift 2
  if compgen -G "$run/checkpoint-*" >/dev/null; then resume=(--resume_from_checkpoint latest); fi
  python -m dreamcore.cli train \
    --pretrained_model_name_or_path "$base" --backend torch --device cpu \
    --instance_data_dir "$BUILD/scenes" --use_captions --caption_dropout 0.1 --resolution 64 --center_crop \
    --latent_cache_dir "$BUILD/latents" --train_text_encoder --use_ema --ema_decay 0.998 --channels_last \
    --train_batch_size 32 --lr_scheduler cosine --lr_warmup_steps 100 \
    --checkpointing_steps 250 --checkpoints_total_limit 2 --logging_steps 25 --report_to none \
    --output_dir "$run" "$@" "${resume[@]}"
}
# First every timestep weighs the same; then those weigh more at which a pattern's place is decided.
[ -f "$BUILD/first/model_index.json" ] ||
  denoiser "$BUILD/init" "$BUILD/first" --max_train_steps "$UPDATES" --learning_rate 1e-3
[ -f "$BUILD/run/model_index.json" ] ||
  denoiser "$BUILD/first" "$BUILD/run" --max_train_steps "$FURTHER" --learning_rate 8e-4 --snr_gamma 0.25

# Twice the blocks, which compute the same at first.
[ -f "$BUILD/grown/model_index.json" ] || python tools/tinyworld/grow.py --model "$BUILD/run" --out "$BUILD/grown"
[ -f "$BUILD/last/model_index.json" ] ||
  denoiser "$BUILD/grown" "$BUILD/last" --max_train_steps "$LAST" --learning_rate 8e-4 --snr_gamma 1

python tools/tinyworld/publish.py --run "$BUILD/last" --out "$OUT"
python tools/tinyworld/evaluate.py base --model "$OUT" --out "$BUILD/base" --steps $((SCALE > 1 ? 2 : 30))
