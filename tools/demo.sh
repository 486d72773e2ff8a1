#!/usr/bin/env bash
# The complete way on handwritten digits, in minutes on two cores: convert, train CLIM, evaluate, draw. Called by `make demo`.
set -euo pipefail
cd "$(dirname "$0")/.."
DATA=data/digits.beton RUN=runs/demo

echo "== convert: scikit-learn's handwritten digits to FFCV's format"
[ -e $DATA ] && [ -e $DATA.json ] || python -m tools.convert digits $DATA --force
echo "== train: CLIM"
rm -rf $RUN
accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
    train.py --method clim --data $DATA --output $RUN --knn-every 10
echo "== evaluate: kNN beside the untrained network and raw pixels, and a linear probe"
python eval.py knn --run $RUN --data $DATA --val-data data/digits-test.beton --baselines
python eval.py linear --run $RUN --data $DATA --val-data data/digits-test.beton
echo "== draw: the views of the recipe, and anchors beside their partners"
python -m tools.preview views $DATA $RUN/views.png
python -m tools.preview partners $RUN $DATA $RUN/partners.png
echo "== done; look at $RUN/views.png and $RUN/partners.png, the checkpoint is in $RUN/checkpoints"
