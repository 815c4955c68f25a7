#!/bin/sh
# Count lines, words and bytes of the files below a folder: an example of a task that is not Python.
#
#   word_count.sh [FOLDER [PATTERN]]     default: the folder of this script, and '*'
#
# Under the scheduler it is run by run_command.py. It writes word_count.csv into $SCHEDULER_OUTPUT and reports by
# appending JSON lines to $SCHEDULER_REPORTS; by hand it uses the current folder and stderr.
set -eu

case "${1-}" in
-h | --help)
    echo "usage: word_count.sh [FOLDER [PATTERN]]"
    exit 0
    ;;
esac

folder=${1:-$(dirname "$0")}
pattern=${2:-*}
output=${SCHEDULER_OUTPUT:-$PWD}/word_count.csv
newline='
'

# One line of JSON, in one write.
report() {
    if [ -n "${SCHEDULER_REPORTS-}" ]; then
        printf '%s\n' "$1" >>"$SCHEDULER_REPORTS" || :
    else
        printf '%s\n' "$1" >&2
    fi
}

# Text as the inside of a JSON string.
json() {
    printf '%s' "$1" | tr -d '\000-\037\177' | sed 's/\\/\\\\/g; s/"/\\"/g'
}

if [ ! -d "$folder" ]; then
    printf 'There is no folder “%s”; name one that can be read.\n' "$folder" >&2
    exit 2
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

# Names with a newline would read as two names.
(cd "$folder" && find . -type f -name "$pattern" ! -path "*$newline*") | LC_ALL=C sort >"$scratch/files"
total=$(($(wc -l <"$scratch/files")))
every=$((total / 100 + 1))
report "{\"message\": \"Counting the words of $total files in $(json "$folder")\"}"

done=0
unread=0
lines_sum=0
words_sum=0
echo 'file,lines,words,bytes' >"$scratch/csv"
while IFS= read -r file; do
    if counts=$(wc <"$folder/$file"); then
        # shellcheck disable=SC2086  (three numbers)
        set -- $counts
        quoted=$(printf '%s' "$file" | sed 's/"/""/g')
        printf '"%s",%s,%s,%s\n' "$quoted" "$1" "$2" "$3" >>"$scratch/csv"
        lines_sum=$((lines_sum + $1))
        words_sum=$((words_sum + $2))
    else
        unread=$((unread + 1))
    fi
    done=$((done + 1))
    if [ $((done % every)) -eq 0 ] || [ "$done" -eq "$total" ]; then
        report "{\"progress\": $done, \"total\": $total, \"label\": \"files\"}"
    fi
done <"$scratch/files"

cp "$scratch/csv" "$output"
summary="$words_sum words in $lines_sum lines of $total files"
[ "$unread" -eq 0 ] || summary="$summary; $unread could not be read"
report "{\"message\": \"$summary.\"}"
[ "$unread" -eq 0 ]
