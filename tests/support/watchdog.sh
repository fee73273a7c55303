# Runs a server for a test process and outlives that process: whatever way it ends, also by
# kill -9, its end of our standard input closes, and then the server is killed and its folder removed.
# Static fixtures depend on this, because Rust never drops statics.
#
#   sh watchdog.sh FOLDER PROGRAM ARGUMENT…      output of the program: FOLDER/log
#
# Reads one command per line and answers each with the process id of the server, or an empty line.
folder=$1
shift
server=

end() {
    [ -n "$server" ] || return 0
    # A paused server would not see any other signal than KILL.
    kill -CONT "$server"
    kill "-$1" "$server"
    # Only now is the id free for another process: up to here it can only mean the server.
    wait "$server"
    server=
}

exec 2>/dev/null
# The answer to a command may find nobody there; the folder has to go all the same.
trap '' PIPE
trap 'end KILL; rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM

while read -r command; do
    case $command in
        start)
            end KILL
            # Nothing of ours stays open in the server: a pipe that it held would never end.
            "$@" </dev/null >>"$folder/log" 2>&1 &
            server=$!
            ;;
        stop) end TERM ;;
        kill) end KILL ;;
        pause) kill -STOP "$server" ;;
        resume) kill -CONT "$server" ;;
    esac
    echo "$server"
done
