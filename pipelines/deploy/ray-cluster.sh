#!/bin/sh
# A Ray cluster by hand, and a run on it. On the first machine, then on each other one, then where the run is started:
#   ray-cluster.sh head 10.0.0.1
#   ray-cluster.sh worker 10.0.0.1
#   ray-cluster.sh run 10.0.0.1 coco.yaml
# All machines need the same pseudolabel[ray] and the same path to the run folder. `ray stop` ends a machine's part.
set -eu
case "$1" in
  head | worker)
    # Ray asks metadata servers for its cloud unless this file answers, and reports its start unless it has nowhere to
    RAY_USAGE_STATS_ENABLED=0 RAY_USAGE_STATS_REPORT_URL=http://127.0.0.1:9/
    export RAY_USAGE_STATS_ENABLED RAY_USAGE_STATS_REPORT_URL
    [ -e "$HOME/ray_bootstrap_config.yaml" ] || echo '{}' > "$HOME/ray_bootstrap_config.yaml"
    if [ "$1" = head ]; then
      exec ray start --head --node-ip-address="$2" --port=6379 --include-dashboard=false --disable-usage-stats
    fi
    exec ray start --address="$2:6379"
    ;;
  run)
    exec pseudolabel run "$3" --engine ray --ray-address "$2:6379"
    ;;
  *)
    echo "usage: $0 head|worker|run ADDRESS [RUN-FILE]" >&2
    exit 2
    ;;
esac
