#!/bin/sh
# Makes the database on an empty volume, then becomes the server. The first boot happens in a folder of its own that is
# renamed when all of it is there: a kill at any moment leaves either nothing or a whole database to go on with.
set -eu

data=/var/lib/mysql
making=$data/.first-boot
made=$data/.first-boot-complete
# An empty database, there until the accounts are made: their last statement drops it.
without_accounts=_first_boot
# There while the user's scripts run: the health check does not take their server for the real one.
first_boot_runs=/run/mysqld/first-boot

die() {
    echo "mariadb: $*" >&2
    exit 1
}

# setting NAME [DEFAULT]: the value of NAME, or of the file that NAME_FILE names, into the shell variable `value`.
setting() {
    eval "plain=\${$1:-} file=\${$1_FILE:-}"
    if [ -n "$plain" ] && [ -n "$file" ]; then
        die "both $1 and $1_FILE are set: give one of them"
    fi
    value=${plain:-${2:-}}
    if [ -n "$file" ]; then
        [ -r "$file" ] || die "$1_FILE: $file can't be read"
        value=$(cat "$file")
        [ -n "$value" ] || die "$1_FILE: $file is empty"
    fi
}

# As a string literal, and as an identifier.
text() { printf "'%s'" "$(printf %s "$1" | sed "s/\\\\/\\\\\\\\/g; s/'/''/g")"; }
# shellcheck disable=SC2016
name() { printf '`%s`' "$(printf %s "$1" | sed 's/`/``/g')"; }

# The image's own copy of the system tables, made with the same settings; or all of it anew.
system_tables() {
    if system-tables.sh --settings | cmp -s - /usr/share/mysql/system-tables.settings; then
        tar -xpf /usr/share/mysql/system-tables.tar -C "$making" || die "could not unpack the system tables"
    else
        echo "mariadb: other InnoDB settings than the image's: making the system tables with them"
        system-tables.sh | mariadbd --bootstrap --datadir="$making" --log-warnings=0 --enforce-storage-engine= \
            --max-allowed-packet=8M || die "could not make the system tables (messages are above)"
    fi
    # The version that these tables are of, as mariadb-install-db notes it for later upgrades.
    install -o mysql -g mysql -m 0660 /usr/share/mysql/system-tables.version "$making/mysql_upgrade_info"
    install -d -o mysql -g mysql "$making/$without_accounts"
}

# What the settings ask for, for a server that starts, before it takes connections. A kill may have come after any statement.
accounts() {
    # Neither replicas nor a log of all statements learn of it.
    echo 'SET SESSION sql_log_bin = 0;'
    echo 'SET SESSION sql_log_off = 1;'
    # Root inside the container (who could read the files anyway, and whom the health check runs as) needs no password.
    printf "ALTER USER root@localhost IDENTIFIED VIA unix_socket OR mysql_native_password USING PASSWORD(%s);\n" \
        "$(text "$root_password")"
    if [ "$root_host" != localhost ]; then
        printf "CREATE OR REPLACE USER root@%s IDENTIFIED BY %s;\n" "$(text "$root_host")" "$(text "$root_password")"
        printf "GRANT ALL ON *.* TO root@%s WITH GRANT OPTION;\n" "$(text "$root_host")"
    fi
    if [ -n "$database" ]; then
        printf "CREATE DATABASE IF NOT EXISTS %s;\n" "$(name "$database")"
    fi
    if [ -n "$user" ]; then
        printf "CREATE OR REPLACE USER %s@'%%' IDENTIFIED BY %s;\n" "$(text "$user")" "$(text "$password")"
        if [ -n "$database" ]; then
            # In a grant _ and % are wildcards.
            printf "GRANT ALL ON %s.* TO %s@'%%';\n" \
                "$(name "$(printf %s "$database" | sed 's/[_%]/\\&/g')")" "$(text "$user")"
        fi
    fi
    echo "DROP DATABASE $without_accounts;"
    # The user's own init file, of which a server takes only one.
    file=$({ my_print_defaults --mariadbd; printf '%s\n' "$@"; } | sed -n 's/^--init[-_]file=//p' | tail -n 1)
    if [ -n "$file" ]; then
        cat "$file"
    fi
}

# Opens the accounts' statements as descriptor 4: in memory, without a name, for the server's user.
open_accounts() {
    statements=$(mktemp -p /dev/shm)
    accounts "$@" >"$statements"
    chown mysql "$statements"
    exec 4<"$statements"
    rm "$statements"
}

# The user's own scripts need a server that knows all of SQL. It runs in the foreground, not reachable from outside, at
# the end of a pipe whose other end runs the scripts and then asks it to shut down: nothing stays behind.
own_scripts() {
    : >"$first_boot_runs"
    exec 3>&1
    # Not in a condition: there `set -e` would not count, not even in the scripts.
    set +e
    run_scripts | mariadbd --datadir="$making" --skip-networking --log-warnings=0 --init-file=/proc/self/fd/4
    status=$?
    set -e
    [ "$status" = 0 ] || die "the server for the scripts in /docker-entrypoint-initdb.d failed (its messages are above)"
    [ -e "$first_boot_runs.done" ] || die "a script in /docker-entrypoint-initdb.d failed (see above)"
    exec 3>&- 4<&-
    rm -f "$first_boot_runs" "$first_boot_runs.done"
}

run_scripts() {
    tries=0
    until mariadb --user=root --execute='SELECT 1' >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || return 1
        sleep 0.05
    done
    export MARIADB_DATABASE="$database"
    (
        set -e
        for file in /docker-entrypoint-initdb.d/*; do run_script "$file"; done
        : >"$first_boot_runs.done"
    ) >&3
    mariadb --user=root --execute='SHUTDOWN'
}

run_script() {
    case $1 in
    *.sh)
        echo "mariadb: running $1"
        # shellcheck disable=SC1090
        if [ -x "$1" ]; then "$1"; else . "$1"; fi
        ;;
    *.sql)
        echo "mariadb: reading $1"
        docker_process_sql <"$1"
        ;;
    *.sql.gz)
        echo "mariadb: reading $1"
        gzip --test "$1"
        gunzip --stdout "$1" | docker_process_sql
        ;;
    *) echo "mariadb: ignoring $1" ;;
    esac
}

read_settings() {
    setting MARIADB_ROOT_PASSWORD
    root_password=$value
    if [ -z "$root_password" ] && [ -z "${MARIADB_ALLOW_EMPTY_ROOT_PASSWORD:-}" ]; then
        die "the volume is empty, and no root password is given: set MARIADB_ROOT_PASSWORD_FILE, MARIADB_ROOT_PASSWORD" \
            "or MARIADB_ALLOW_EMPTY_ROOT_PASSWORD"
    fi
    setting MARIADB_ROOT_HOST %
    root_host=$value
    setting MARIADB_DATABASE
    database=$value
    setting MARIADB_USER
    user=$value
    setting MARIADB_PASSWORD
    password=$value
    [ "$user" != root ] || die "MARIADB_USER=root: root is there already, choose another name"
    if [ -n "$user" ] && [ -z "$password" ]; then
        die "MARIADB_USER is set without MARIADB_PASSWORD or MARIADB_PASSWORD_FILE"
    fi
    if [ -n "$password" ] && [ -z "$user" ]; then
        die "MARIADB_PASSWORD is set without MARIADB_USER"
    fi
}

first_boot() {
    echo "mariadb: first boot, making the database"
    rm -rf "$making"
    install -d -o mysql -g mysql -m 0750 "$making"
    system_tables
    for file in /docker-entrypoint-initdb.d/*; do
        [ -e "$file" ] || continue
        open_accounts "$@"
        own_scripts
        break
    done
    sync -f "$making"
    mv "$making" "$made"
}

# Each step may have been done by a run that was killed: what is in the folder still has to move, what isn't has moved.
put_in_place() {
    find "$made" -mindepth 1 -maxdepth 1 ! -name mysql -exec mv -t "$data" {} +
    # Last, because its presence is what says that the volume is in use.
    if [ -d "$made/mysql" ]; then
        mv "$made/mysql" "$data/"
    fi
    rmdir "$made"
}

case ${1:-} in
-*) set -- mariadbd "$@" ;;
mysqld) shift; set -- mariadbd "$@" ;;
esac

if [ "${1:-}" = mariadbd ]; then
    install -d -o mysql -g mysql /run/mysqld
    rm -f "$first_boot_runs" "$first_boot_runs.done"
    chown mysql:mysql "$data"
    if [ ! -d "$data/mysql" ] || [ -d "$data/$without_accounts" ]; then
        read_settings
    fi
    if [ ! -d "$data/mysql" ] && [ ! -d "$made" ]; then
        first_boot "$@"
    fi
    if [ -d "$made" ]; then
        put_in_place
    fi
    if [ -d "$data/$without_accounts" ]; then
        open_accounts "$@"
        set -- "$@" --init-file=/proc/self/fd/4
    fi
fi

exec "$@"
