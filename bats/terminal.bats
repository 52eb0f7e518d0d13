# A container on the user's own terminal; script(1) is the terminal.

load helper

setup() {
    if [ "$PLAIN_USER" = root ]; then
        skip "needs an ordinary user"
    fi
    command -v script >/dev/null || skip "needs script: apt install bsdutils"
    log_in "$PLAIN_USER"
    make_rootfs
    ok rt spec --rootless
}

teardown() {
    log_out
}

# The shell's prompt, as busybox writes it.
PROMPT='/ # '

@test "the default config gives a shell on the terminal, and its exit code" {
    on_terminal "rt --root $STATE run one" "$PROMPT" $'echo "six times seven is $((6 * 7))"\nexit 3\n'
    is "$status" 3
    has "$output" "six times seven is 42"
}

@test "the terminal inside is the container's own, and is the controlling one" {
    on_terminal "rt --root $STATE run one" "$PROMPT" $'tty; echo "$((40 + 2))" >/dev/tty; exit\n'
    is "$status" 0
    has "$output" /dev/pts/0
    has "$output" 42
}

@test "the terminal inside has the size of the one outside" {
    on_terminal "stty rows 33 cols 111; rt --root $STATE run one" "$PROMPT" $'stty size; exit\n'
    has "$output" "33 111"
}

@test "control-C interrupts the program inside, and the container goes on" {
    on_terminal "rt --root $STATE run one" \
        "$PROMPT" $'sh -c "echo \\$((40 + 2)); exec sleep 1000"\n' \
        42 $'\003' \
        '^C' $'echo "ended with $?"\nexit 4\n'
    has "$output" "ended with 130"
    is "$status" 4
}

@test "the terminal outside is as before when the container has ended" {
    on_terminal "stty -a >before; rt --root $STATE run one; stty -a >after" "$PROMPT" $'exit\n'
    diff "$WORK/before" "$WORK/after"
}
