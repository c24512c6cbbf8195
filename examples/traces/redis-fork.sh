#!/bin/sh
# Records redis while it saves a snapshot: BGSAVE forks, the child writes all keys to a file, and the parent goes on storing.
# The clients run beside the recording, by themselves.
#
#   ./redis-fork.sh OUTPUT.parquet [OPTIONS OF record run]
set -eu
out=$(realpath "$1")
shift
where=$(mktemp -d)
cd "$where"
trap 'rm -rf "$where"' EXIT

secondsight record run -o "$out" "$@" -- redis-server --port 0 --unixsocket redis.sock --save '' \
  --appendonly no --rdbcompression no --io-threads 1 --activerehashing no --hz 10 --loglevel warning &
recorder=$!
until redis-cli -s redis.sock ping > said 2>&1; do
  kill -0 "$recorder" || exit 1
  sleep 0.2
done

value=$(head -c 1500 /dev/zero | tr "\0" x)
say() { redis-cli -s redis.sock "$@"; }
store() { redis-benchmark -s redis.sock -c 4 -q -n "$1" -r "$2" SET key:__rand_int__ "$value" > /dev/null; }

store 60000 30000                # fills: 45 MB
store 4000 1500                  # a twentieth of the keys is busy
say BGSAVE
store 6000 1500                  # stores to the busy keys, and to some others, while the child saves
store 2000 30000
until [ "$(say INFO persistence | tr -d '\r' | sed -n 's/^rdb_bgsave_in_progress://p')" = 0 ]; do
  store 200 1500
done
store 4000 1500                  # after the child has ended
say SHUTDOWN NOSAVE || true
wait
