#!/usr/bin/env bash
# Speaks the evaluation sets into the folder $1: held-out dictations with the voices of the training, dictations of the same
# generator with voices that were never in training, and the hand-written set with two voices of each kind. The result is
# the same every time, except for the voice piper-joe.
set -euo pipefail
set_folder=$1
here=$(cd "$(dirname "$0")/.." && pwd)
voices=hibari-heart:6,flite-rms:3,flite-slt:2,festival-slt-hts:2,flite-kal16:1.5,festival-ked:1.5,espeak-us-m1:0.4,espeak-us-m3:0.4,espeak-us-f2:0.2,espeak-us-f3:0.4,espeak-gb-m2:0.4,espeak-gb-f5:0.4,espeak-scotland-m5:0.4,espeak-nyc-m4:0.4
mkdir -p "$set_folder"
dictalake write-dictations --count 500 --seed 31 --held-out --out "$set_folder/held-out.csv"
dictalake synthesize --texts "$set_folder/held-out.csv" --out "$set_folder/held-out" --voices "$voices" --seed 31
dictalake write-dictations --count 120 --seed 32 --held-out --out "$set_folder/unseen-voices.csv"
dictalake synthesize --texts "$set_folder/unseen-voices.csv" --out "$set_folder/unseen-voices" --voices piper-joe,flite-awb --seed 32
dictalake synthesize --texts "$here/pipelines/dictalake/assets/evaluation/handwritten_report.csv" --out "$set_folder/hand-written" --voices hibari-heart,flite-rms --seed 33
dictalake synthesize --texts "$here/pipelines/dictalake/assets/evaluation/handwritten_report.csv" --out "$set_folder/hand-written-unseen" --voices piper-joe,flite-awb --seed 33
