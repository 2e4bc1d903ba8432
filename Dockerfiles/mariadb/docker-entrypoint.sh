#!/bin/sh
# Makes the database on an empty volume, then becomes the server. The first boot happens in a folder of its own that is
# renamed when all of it is there: a kill at any moment leaves either nothing or a whole database to go on with.
set -eu

data=/var/lib/mysql
making=$data/.first-boot
made=$data/.first-boot-complete

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
text() { printf %s "$1" | sed "s/\\\\/\\\\\\\\/g; s/'/''/g; 1s/^/'/; \$s/\$/'/"; }
name() { printf %s "$1" | sed 's/`/``/g; 1s/^/`/; $s/$/`/'; }

# Everything a server needs, in one bootstrap: what mariadb-install-db would feed, then this stack's accounts.
system_tables() {
    echo 'CREATE DATABASE IF NOT EXISTS mysql; '
    echo 'USE mysql;'
    echo 'SET @auth_root_socket=NULL;'
    cd /usr/share/mysql
    # Without accounts for this container's own host name, which the next container won't have.
    cat mysql_system_tables.sql mysql_performance_tables.sql mysql_system_tables_data.sql \
        maria_add_gis_sp_bootstrap.sql mysql_sys_schema.sql | sed '/@current_hostname/d'
    cd /
}

accounts() {
    echo 'FLUSH PRIVILEGES;'
    echo "DELETE FROM mysql.global_priv WHERE User = '' OR (User = 'root' AND Host <> 'localhost');"
    echo 'FLUSH PRIVILEGES;'
    # Root inside the container (who could read the files anyway, and whom the health check runs as) needs no password.
    printf "ALTER USER root@localhost IDENTIFIED VIA unix_socket OR mysql_native_password USING PASSWORD(%s);\n" \
        "$(text "$root_password")"
    if [ "$root_host" != localhost ]; then
        printf "CREATE USER root@%s IDENTIFIED BY %s;\n" "$(text "$root_host")" "$(text "$root_password")"
        printf "GRANT ALL ON *.* TO root@%s WITH GRANT OPTION;\n" "$(text "$root_host")"
    fi
    if [ -n "$database" ]; then
        printf "CREATE DATABASE IF NOT EXISTS %s;\n" "$(name "$database")"
    fi
    if [ -n "$user" ]; then
        printf "CREATE USER %s@'%%' IDENTIFIED BY %s;\n" "$(text "$user")" "$(text "$password")"
        if [ -n "$database" ]; then
            # In a grant _ and % are wildcards.
            printf "GRANT ALL ON %s.* TO %s@'%%';\n" \
                "$(name "$(printf %s "$database" | sed 's/[_%]/\\&/g')")" "$(text "$user")"
        fi
    fi
    echo 'FLUSH PRIVILEGES;'
}

first_boot() {
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

    echo "mariadb: first boot, making the database"
    rm -rf "$making"
    install -d -o mysql -g mysql -m 0750 "$making"
    { system_tables; accounts; } |
        mariadbd --bootstrap --datadir="$making" --log-warnings=0 --enforce-storage-engine= --max-allowed-packet=8M ||
        die "could not make the database (its messages are above)"
    # The version that these tables are of, as mariadb-install-db notes it for later upgrades.
    mariadbd --version | sed 's/.*Ver \([^ ]*\).*/\1/; s/\([0-9.]*-MariaDB\).*/\1/' | tr -d '\n' >"$making/mysql_upgrade_info"

    export MARIADB_FIRST_BOOT_DIR="$making" MARIADB_DATABASE="$database"
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
        *.sh)
            echo "mariadb: running $file"
            # shellcheck disable=SC1090
            if [ -x "$file" ]; then "$file"; else . "$file"; fi
            ;;
        *.sql)
            echo "mariadb: reading $file"
            docker_process_sql <"$file" || die "$file failed (see above)"
            ;;
        *.sql.gz)
            echo "mariadb: reading $file"
            { gunzip -c "$file" || echo "SIGNAL SQLSTATE '45000';"; } | docker_process_sql || die "$file failed (see above)"
            ;;
        '/docker-entrypoint-initdb.d/*') ;;
        *) echo "mariadb: ignoring $file" ;;
        esac
    done
    unset MARIADB_FIRST_BOOT_DIR
    chown -R mysql:mysql "$making"
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
    chown mysql:mysql "$data"
    if [ ! -d "$data/mysql" ] && [ ! -d "$made" ]; then
        first_boot
    fi
    if [ -d "$made" ]; then
        put_in_place
    fi
fi

exec "$@"
