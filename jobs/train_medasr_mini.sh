#!/usr/bin/env bash
# Makes medasr-mini again in the folder $1: texts, speech (about 115 h), acoustic model, language model. It takes six hours
# on two cores that multiply in bfloat16; run it again to resume a killed run. It needs `pip install .[synthesis]`, the
# programs flite, espeak-ng and festival, and the word list hunspell-en-med.
set -euo pipefail
work=$1
voices=hibari-heart:6,flite-rms:3,flite-slt:2,festival-slt-hts:2,flite-kal16:1.5,festival-ked:1.5,espeak-us-m1:0.4,espeak-us-m3:0.4,espeak-us-f2:0.2,espeak-us-f3:0.4,espeak-gb-m2:0.4,espeak-gb-f5:0.4,espeak-scotland-m5:0.4,espeak-nyc-m4:0.4
late_voices=${voices/hibari-heart:6/hibari-heart:4.5}
late_voices=${late_voices/flite-kal16:1.5,festival-ked:1.5/flite-kal16:3,festival-ked:3} # the two hardest more often
late_voices=${late_voices/festival-slt-hts:2/festival-slt-hts:1.5}
quick_voices=flite-rms:2,flite-slt:2,flite-kal16:1,espeak-us-m1:0.5,espeak-us-m3:0.5,espeak-us-f3:0.5
medical_words=/usr/share/hunspell/en_med_glut.dic # Debian hunspell-en-med
mkdir -p "$work"

write() { [ -e "$work/$1.csv" ] || dictalake write-dictations --out "$work/$1.csv" "${@:2}"; }
speak() { dictalake synthesize --texts "$work/$1.csv" --out "$work/$1" --voices "$2" --seed "$3"; }
train() {
  dictalake finetune --from-scratch --out "$work/model" --pieces 512 --hidden-size 160 --layers 9 --heads 4 \
    --held-out "$work/monitor/manifest.csv" --held-out-limit 150 --batch-s 120 --warmup-steps 150 --sorted-epochs 0 "$@"
}

# 1. Lists of one to three words: with an even alignment nearly right, the model learns which sound is which piece.
write words --count 9000 --seed 5 --free-words 1 --list-words 1 3 --wordlist $medical_words
write plain --count 3000 --seed 21
write mixed1 --count 6000 --seed 1 --free-words 0.08 --wordlist $medical_words
write mixed2 --count 6000 --seed 3 --free-words 0.08 --wordlist $medical_words
write mixed3 --count 6000 --seed 41 --free-words 0.08 --wordlist $medical_words
write mixed4 --count 6000 --seed 42 --free-words 0.08 --wordlist $medical_words
write vocabulary --count 6000 --seed 51 --free-words 1 --list-words 4 8
for seed in 44 45 46; do write mixed$seed --count 6000 --seed $seed --free-words 0.08 --wordlist $medical_words; done
for seed in 52 53; do write vocabulary$seed --count 6000 --seed $seed --free-words 1 --list-words 4 8; done
write monitor --count 500 --seed 10 --held-out
speak words $quick_voices 5
speak plain flite-rms:2,flite-slt:2,flite-kal16:1,espeak-us-m1:1 21
speak mixed1 "$voices" 1
speak mixed2 "$voices" 3
speak mixed3 "$late_voices" 41
speak mixed4 "$late_voices" 42
speak vocabulary "$late_voices" 51
for seed in 44 45 46; do speak mixed$seed "$late_voices" $seed; done
for seed in 52 53; do speak vocabulary$seed "$late_voices" $seed; done
speak monitor "$voices" 10
all=(--manifest "$work/plain/manifest.csv" --manifest "$work/mixed1/manifest.csv" --manifest "$work/mixed2/manifest.csv")
mkdir -p "$work/model"
train --manifest "$work/words/manifest.csv" --tokenizer-text "$work/plain.csv" --tokenizer-text "$work/mixed1.csv" \
  --steps 460 --decay-share 0 --peak-rate 1.2e-3 --flat-start-steps 500 --augment-share 0 --mel-masks 0 --time-mask-frames 0

# 2. Dictations.
train "${all[@]}" --steps 7700 --decay-share 0.35 --peak-rate 1.4e-3 --augment-share 0.2 \
  --mel-masks 1 --mel-mask-bands 12 --time-masks-per-s 0.05 --time-mask-frames 10

# 3. New texts; towards the end a third of them are lists of all the words there are.
later() {
  dictalake finetune --base "$work/model" --out "$work/model2" --held-out "$work/monitor/manifest.csv" --held-out-limit 150 \
    --manifest "$work/mixed3/manifest.csv" --manifest "$work/mixed4/manifest.csv" --batch-s 80 --warmup-steps 100 --sorted-epochs 0 \
    --augment-share 0.2 --mel-masks 1 --mel-mask-bands 12 --time-masks-per-s 0.05 --time-mask-frames 10 --peak-rate 5e-4 "$@"
}
later --steps 2720 --decay-share 0
later --steps 4250 --decay-share 0.9 --manifest "$work/vocabulary/manifest.csv" --manifest "$work/vocabulary/manifest.csv"

# 4. The same again with other texts, for longer.
dictalake finetune --base "$work/model2" --out "$work/model3" --held-out "$work/monitor/manifest.csv" --held-out-limit 150 \
  --manifest "$work/mixed44/manifest.csv" --manifest "$work/mixed45/manifest.csv" --manifest "$work/mixed46/manifest.csv" \
  --manifest "$work/vocabulary52/manifest.csv" --manifest "$work/vocabulary53/manifest.csv" \
  --steps 7500 --batch-s 80 --warmup-steps 200 --sorted-epochs 0 --peak-rate 6e-4 --decay-share 0.85 \
  --augment-share 0.15 --mel-masks 1 --mel-mask-bands 12 --time-masks-per-s 0.05 --time-mask-frames 10

# 5. The language model: 200,000 dictations of the same generator, without a held-out sentence.
for seed in 101 102 103 104 105 106 107 108; do write "text$seed" --count 25000 --seed $seed --free-words 0.03; done
dictalake build-lm --text "$work"/text10?.csv --exclude "$work/monitor.csv" --model "$work/model3" --order 6 --quantize \
  --out "$work/model3/lm_6.kenlm"
